package maintenance

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
)

// The states of VMs besides those that their agents report.
const (
	stateOffline = "offline"
	stateUnknown = "unknown" // connected, but no state was reported yet
)

// vmStates are the values of the label for the state of a VM.
var vmStates = append(slices.Clone(fleet.Statuses), stateOffline, stateUnknown, metric.Other)

// queueNames are the values of the label for the queue of open commands.
var queueNames = map[fleet.Queue]string{
	fleet.QueueDelivered: "delivered", fleet.QueuePlain: "pending", fleet.QueueToken: "pending_token",
}

// metrics are the metrics of a Maintenance.
type metrics struct {
	with        promauto.Factory
	vms         *prometheus.GaugeVec
	open        map[fleet.Queue]prometheus.Gauge
	counted     prometheus.Gauge
	logsDropped prometheus.Counter
	// oldestConnected and oldestOffline are when the oldest pending command of a connected VM
	// and of any other was accepted.
	oldestConnected, oldestOffline *instant
}

// instant is a time, or none. It is safe for concurrent use.
type instant struct{ at atomic.Pointer[time.Time] }

// set sets the time; zero means none.
func (i *instant) set(at time.Time) {
	if at.IsZero() {
		i.at.Store(nil)
		return
	}
	i.at.Store(&at)
}

// age returns the seconds since the time; 0 if there is none.
func (i *instant) age(now time.Time) float64 {
	if at := i.at.Load(); at != nil {
		return max(0, now.Sub(*at).Seconds())
	}
	return 0
}

func newMetrics(r prometheus.Registerer, clock func() time.Time) metrics {
	with := promauto.With(r)
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help}
	}
	open := with.NewGaugeVec(gauge("commands_open",
		"Commands that have not ended, when they were last counted: delivered ones wait for their ack, pending ones for their delivery, and pending_token are those that need a registration token."),
		[]string{"queue"})
	m := metrics{
		with: with,
		vms: with.NewGaugeVec(gauge("vms",
			"VMs by the state that their agents report, when they were last counted: offline if they have no session, unknown before the first report. Agents may report idle while their runner has a job."),
			[]string{"pool", "state"}),
		open: map[fleet.Queue]prometheus.Gauge{},
		counted: with.NewGauge(gauge("counted_timestamp_seconds",
			"When VMs and open commands were last counted, which is done every 15 seconds, or less often if it takes long.")),
		oldestConnected: new(instant), oldestOffline: new(instant),
		logsDropped: with.NewCounter(prometheus.CounterOpts{
			Namespace: metric.Namespace, Name: "command_log_lines_dropped_total",
			Help: "Log lines about commands and registrations that were dropped because the log is too slow.",
		}),
	}
	for q, name := range queueNames {
		m.open[q] = open.WithLabelValues(name)
	}
	for connected, oldest := range map[string]*instant{"true": m.oldestConnected, "false": m.oldestOffline} {
		opts := gauge("commands_oldest_pending_seconds",
			"Time since the acceptance of the oldest command that is pending, as of the last count; 0 for none. Those of VMs that are not connected wait for their return; others should be delivered soon.")
		opts.ConstLabels = prometheus.Labels{"connected": connected}
		with.NewGaugeFunc(opts, func() float64 { return oldest.age(clock()) })
	}
	return m
}
