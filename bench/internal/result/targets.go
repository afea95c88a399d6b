package result

import (
	"math"

	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// Target is a requirement for a measure.
type Target struct {
	Name    string
	Against string
	// Must is a lower bound, or an upper bound if AtMost.
	Must   float64
	AtMost bool
	Unit   string
	// of returns the values that are compared, one for each run.
	of func(Results) []float64
}

// Verdict is whether a target was met.
type Verdict string

// The verdicts.
const (
	NotMeasured Verdict = "not measured"
	Missed      Verdict = "missed"
	Met         Verdict = "met"
)

// The units of targets.
const (
	ratioUnit  = "×"
	secondUnit = " s"
	milliUnit  = " ms"
)

const (
	bare       = string(target.Bare)
	controller = string(target.Controller)
)

// Targets are all targets.
var Targets = []Target{
	{
		Name: "heartbeat flood, 50 VMs, every heartbeat a durable row", Against: "bare grpc-go",
		Must: 0.4, Unit: ratioUnit, of: ratio("flood", "per_second"),
	},
	{
		Name: "server CPU per heartbeat, 2,000 VMs, 4,000 heartbeats/s", Against: "bare grpc-go",
		Must: 1.25, AtMost: true, Unit: ratioUnit, of: ratio("paced", "cpu_us"),
	},
	{
		Name: "RSS per idle stream, 10,000 streams", Against: "bare grpc-go",
		Must: 1.6, AtMost: true, Unit: ratioUnit, of: ratio("idle", "kib_per_stream"),
	},
	{
		Name: "connect rate: session, register_runner, ack and event, all durable", Against: "bare grpc-go, which only acks",
		Must: 0.4, Unit: ratioUnit, of: ratio("connect", "per_second"),
	},
	{
		Name: "SendCommand → agent → ack recorded, one at a time, durable: p50", Against: "bare grpc-go + two fsyncs",
		Must: 1.7, AtMost: true, Unit: ratioUnit, of: roundTrip,
	},
	{
		Name: "durable commands/s, 1,000 VMs in parallel", Against: "bare grpc-go, not durable",
		Must: 0.35, Unit: ratioUnit, of: ratio("commands", "per_second"),
	},
	{
		Name: "10,000 VMs reconnect after kill -9: all sessions back", Against: "–",
		Must: 5, AtMost: true, Unit: secondUnit, of: value("reconnect", "seconds"),
	},
	{
		Name: "ListVMs, a page of 100: p99 while 4,000 heartbeats/s arrive at 10,000 VMs", Against: "–",
		Must: 100, AtMost: true, Unit: milliUnit, of: value("reads", "list_p99_ms"),
	},
	{
		Name: "GetVM: p99 at the same time", Against: "–",
		Must: 100, AtMost: true, Unit: milliUnit, of: value("reads", "get_p99_ms"),
	},
	{
		Name: "start with 100,000 known VMs and 1,000,000 finished commands", Against: "–",
		Must: 3, AtMost: true, Unit: secondUnit, of: value("start", "seconds"),
	},
}

// Of returns the spread of the results for the target.
func (t Target) Of(r Results) Spread { return SpreadOf(t.of(r)) }

// Judge compares the median with the target.
func (t Target) Judge(s Spread) Verdict {
	met := s.Median >= t.Must
	if t.AtMost {
		met = s.Median <= t.Must
	}
	switch {
	case math.IsNaN(s.Median):
		return NotMeasured
	case met:
		return Met
	default:
		return Missed
	}
}

func value(measure, name string) func(Results) []float64 {
	return func(r Results) []float64 { return r.Of(measure, controller, name, 0) }
}

// ratio returns the controller's value divided by that of the bare server in the same run.
func ratio(measure, name string) func(Results) []float64 {
	return func(r Results) []float64 {
		return divide(r.Of(measure, controller, name, 0), r.Of(measure, bare, name, 0))
	}
}

// roundTrip returns the controller's time divided by that of the bare server plus two disk
// syncs.
func roundTrip(r Results) []float64 {
	const measure = "round-trip"
	with := r.Of(measure, bare, "p50_us", 0)
	for i, sync := range r.Of(measure, controller, "fsync_us", 0) {
		if i < len(with) {
			with[i] += 2 * sync
		}
	}
	return divide(r.Of(measure, controller, "p50_us", 0), with)
}

func divide(a, b []float64) []float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return all
}
