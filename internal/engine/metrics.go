package engine

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The outcomes of an attempt to register the runner of a VM.
const (
	outcomeRegistered = iota
	outcomeFailed
	outcomeCancelled
	outcomeExpired
	outcomes // how many there are
)

var outcomeNames = [outcomes]string{"registered", "failed", "cancelled", "expired"}

// endStates are the states in which a command ends.
var endStates = func() (names []string) {
	for _, s := range fleet.CommandStates {
		if s.Terminal() {
			names = append(names, string(s))
		}
	}
	return names
}()

// classNames are the classes of rows.
var classNames = []string{
	string(store.ClassVMs), string(store.ClassCommands), string(store.ClassEvents), string(store.ClassHeartbeats), string(store.ClassChanges),
	string(store.ClassTokens), string(store.ClassAudit),
}

// metrics are the metrics of an Engine. Those by type have an element for each known type,
// and one for all others.
type metrics struct {
	accepted, delivered    []prometheus.Counter   // by type
	finished               [][]prometheus.Counter // by type and end state
	deliveryTime, ackTime  []prometheus.Observer  // by type
	registrations          []prometheus.Counter   // by outcome
	events                 []prometheus.Counter   // by type
	heartbeats             prometheus.Counter
	damaged                []prometheus.Counter // by class
	audit                  []prometheus.Counter // by outcome
	commitTime, commitRows prometheus.Histogram
	commitsFailed          prometheus.Counter
}

func newMetrics(r prometheus.Registerer, e *Engine) metrics {
	f := factory{promauto.With(r)}
	types := slices.Concat(fleet.CommandTypes, []string{metric.Other})
	m := metrics{
		accepted: each(types, f.counters("commands_accepted_total",
			"Commands that were accepted, from operators and from the controller itself.", "type")),
		delivered: each(types, f.counters("commands_delivered_total",
			"Deliveries of commands, including repeated ones after a reconnect and those that could not be written to the agent in full.", "type")),
		deliveryTime: each(types, f.NewHistogramVec(metric.Histogram("command_delivery_seconds",
			"Time from the acceptance of a command to its first delivery. It is long for VMs that are offline, and for register_runner while no token is available.",
			metric.Durations), []string{"type"}).WithLabelValues),
		ackTime: each(types, f.NewHistogramVec(metric.Histogram("command_ack_seconds",
			"Time from the latest delivery of a command to its ack, for acks that arrived in time.",
			metric.Durations), []string{"type"}).WithLabelValues),
		registrations: each(outcomeNames[:], f.counters("registrations_total",
			"Attempts to register the runner of a VM, by their outcome: registered as its agent proved, failed, cancelled by an operator, or expired before they were delivered. Failures of a whole fleet mean an expired token or a wrong runner URL.", "outcome")),
		events: each(slices.Concat(fleet.EventTypes, []string{metric.Other}), f.counters("events_total",
			"Events of agents that were stored.", "type")),
		heartbeats: f.counter("heartbeats_stored_total", "Heartbeats of agents that were stored."),
		damaged: each(classNames, f.counters("damaged_rows_total",
			"Damaged rows that were found in the database. The log has each one. They mean a faulty disk, or another program that writes to the database.", "class")),
	}
	m.audit = each(slices.Concat(audit.Outcomes, []string{metric.Other}), f.counters("audit_events_total",
		"Audit events that were stored, by outcome. The rejections of a source within a minute share one.", "outcome"))
	finished := f.counters("commands_finished_total",
		"Commands that have ended, by the state in which they did: TIMED_OUT were delivered but not acked in time, EXPIRED were never delivered.", "type", "state")
	for _, kind := range types {
		m.finished = append(m.finished, each(endStates, func(state ...string) prometheus.Counter { return finished(kind, state[0]) }))
	}
	m.addCommits(f)
	f.gauge("inputs_waiting", "Inputs that wait for the next commit. Hundreds all the time mean that the database is the bottleneck.",
		func() int { return len(e.ops) })
	f.gauge("vms_cached", "VMs whose state is in memory: all that are connected, and some of the others.", e.cache.size)
	return m
}

// addCommits adds the metrics of commits.
func (m *metrics) addCommits(f factory) {
	m.commitTime = f.NewHistogram(metric.Histogram("commit_seconds",
		"Duration of commits, including their sync to the disk. Everything durable waits for one, so if they are slow, the controller is.",
		metric.Latencies))
	m.commitRows = f.NewHistogram(metric.Histogram("commit_rows",
		"Rows per commit. Concurrent changes share a commit, and the heartbeats of a commit share a row.",
		[]float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000}))
	m.commitsFailed = f.counter("commits_failed_total",
		"Commits that failed, for example because the disk is full. What they contained was not acknowledged. The log has the cause.")
}

// factory creates metrics.
type factory struct{ promauto.Factory }

// counters returns a function that returns the counter for values of the labels.
func (f factory) counters(name, help string, labels ...string) func(values ...string) prometheus.Counter {
	return f.NewCounterVec(prometheus.CounterOpts{Namespace: metric.Namespace, Name: name, Help: help}, labels).WithLabelValues
}

func (f factory) counter(name, help string) prometheus.Counter {
	return f.NewCounter(prometheus.CounterOpts{Namespace: metric.Namespace, Name: name, Help: help})
}

// gauge adds a gauge that is read at each scrape.
func (f factory) gauge(name, help string, read func() int) {
	f.NewGaugeFunc(prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help},
		func() float64 { return float64(read()) })
}

// each returns what of returns for each value, in their order.
func each[M any](values []string, of func(values ...string) M) (all []M) {
	for _, value := range values {
		all = append(all, of(value))
	}
	return all
}

// indexOf returns the index of a value in those that are known, or of the element for all
// others.
func indexOf(known []string, value string) int {
	if i := slices.Index(known, value); i >= 0 {
		return i
	}
	return len(known)
}

// count counts what a group has done.
func (m *metrics) count(t *tally) {
	for i := range t.steps {
		m.countStep(&t.steps[i])
	}
	for i, n := range t.registrations {
		if n > 0 {
			m.registrations[i].Add(float64(n))
		}
	}
	for _, kind := range t.events {
		m.events[indexOf(fleet.EventTypes, kind)].Inc()
	}
	if t.heartbeats > 0 {
		m.heartbeats.Add(float64(t.heartbeats))
	}
}

func (m *metrics) countStep(s *commandStep) {
	kind := indexOf(fleet.CommandTypes, s.kind)
	if s.accepted {
		m.accepted[kind].Inc()
	}
	if s.delivered {
		m.delivered[kind].Inc()
	}
	if s.ended != "" {
		m.finished[kind][slices.Index(endStates, string(s.ended))].Inc()
	}
	if s.sentAfter >= 0 {
		m.deliveryTime[kind].Observe(s.sentAfter.Seconds())
	}
	if s.ackedAfter >= 0 {
		m.ackTime[kind].Observe(s.ackedAfter.Seconds())
	}
}

// countDamaged counts a damaged row.
func (m *metrics) countDamaged(class store.Class) {
	m.damaged[slices.Index(classNames, string(class))].Inc()
}
