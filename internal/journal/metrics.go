package journal

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// The values of the label for the kind of a file.
const (
	kindEvent     = "event"
	kindHeartbeat = "heartbeat"
)

// metrics are the metrics of a Journal: the outcomes of reports.
type metrics struct {
	// events and heartbeats count written files. An event whose file already existed is not
	// counted.
	events, heartbeats prometheus.Counter
	// failedEvents and failedHeartbeats count failed attempts to write a file. An event that
	// is retried may fail again.
	failedEvents, failedHeartbeats prometheus.Counter
	// eventsOverBudget and overBudget count events and heartbeats without a file because a
	// budget was used up, paused and queueFull heartbeats for these reasons.
	eventsOverBudget, overBudget, paused, queueFull prometheus.Counter
	// unwritten counts the events that a CatchUp gave up: those that it skipped, and those
	// that were removed from the store while the Journal was paused.
	unwritten prometheus.Counter
}

func newMetrics(r prometheus.Registerer, j *Journal) metrics {
	with := promauto.With(r)
	counters := func(name, help string, labels ...string) func(...string) prometheus.Counter {
		return with.NewCounterVec(prometheus.CounterOpts{Namespace: metric.Namespace, Name: name, Help: help}, labels).WithLabelValues
	}
	gauge := func(name, help string, read func() float64) {
		with.NewGaugeFunc(prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help}, read)
	}
	written := counters("journal_files_written_total", "JSON files that were written.", "kind")
	failed := counters("journal_files_failed_total", "Failed attempts to write a JSON file: those of events are repeated. The log has the cause.", "kind")
	skipped := counters("journal_files_skipped_total",
		"Reports without a JSON file; they are in the database all the same. budget: a VM, or all together, report more than is written. paused: too little space is free. queue_full: the disk is too slow. gave_up: the file of an event could not be written, or the event was removed while the journal was paused.",
		"kind", "reason")
	gauge("journal_files_waiting", "JSON files of heartbeats that wait to be written; at 1024 further ones are skipped.",
		func() float64 { return float64(j.waiting()) })
	gauge("journal_paused", "Whether no JSON files are written because too little space is free (--min-free-space).", j.space.pausedValue)
	gauge("journal_free_space_bytes", "Free space of the file system of the JSON files when it was last measured, at least each minute; NaN if it is not known.", j.space.freeValue)
	return metrics{
		events: written(kindEvent), heartbeats: written(kindHeartbeat),
		failedEvents: failed(kindEvent), failedHeartbeats: failed(kindHeartbeat),
		eventsOverBudget: skipped(kindEvent, "budget"), overBudget: skipped(kindHeartbeat, "budget"),
		paused: skipped(kindHeartbeat, "paused"), queueFull: skipped(kindHeartbeat, "queue_full"),
		unwritten: skipped(kindEvent, "gave_up"),
	}
}

// waiting returns how many heartbeat files wait to be written.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queued
}

// pausedValue does not wait for a measurement.
func (s *space) pausedValue() float64 {
	if s.paused.Load() {
		return 1
	}
	return 0
}

// freeValue does not wait for a measurement.
func (s *space) freeValue() float64 {
	if last := s.last.Load(); last != nil {
		return float64(last.Free)
	}
	return math.NaN()
}
