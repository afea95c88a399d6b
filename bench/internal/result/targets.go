package result

import "github.com/mig-controller/mig-controller/bench/internal/target"

// Target is what a measure must reach and what it aims at.
type Target struct {
	Name    string
	Against string
	// Must and Aim are lower bounds, or upper bounds if AtMost.
	Must, Aim float64
	AtMost    bool
	Unit      string
	// of returns the values that count, one for each run.
	of func(Results) []float64
}

// Verdict is how a target was met.
type Verdict string

// The verdicts.
const (
	NotMeasured Verdict = "not measured"
	Missed      Verdict = "missed"
	MustMet     Verdict = "must"
	AimMet      Verdict = "aim"
)

// The units of targets.
const (
	ratioUnit  = "×"
	secondUnit = " s"
	milliUnit  = " ms"
)

const (
	bare       = string(target.Bare)
	files      = string(target.Files)
	controller = string(target.Controller)
)

// Targets are all targets.
var Targets = []Target{
	{
		Name: "heartbeat flood, 50 VMs, every heartbeat a durable row", Against: "a file per heartbeat",
		Must: 5, Aim: 15, Unit: ratioUnit, of: ratio("flood", "per_second", files),
	},
	{
		Name: "the same", Against: "bare grpc-go",
		Must: 0.15, Aim: 0.4, Unit: ratioUnit, of: ratio("flood", "per_second", bare),
	},
	{
		Name: "server CPU per heartbeat, 2,000 VMs, 4,000 heartbeats/s", Against: "a file per heartbeat",
		Must: 0.35, Aim: 0.2, AtMost: true, Unit: ratioUnit, of: ratio("paced", "cpu_us", files),
	},
	{
		Name: "RSS per idle stream, 10,000 streams", Against: "bare grpc-go",
		Must: 1.6, Aim: 1.2, AtMost: true, Unit: ratioUnit, of: ratio("idle", "kib_per_stream", bare),
	},
	{
		Name: "connect rate: session, register_runner, ack and event, all durable", Against: "bare grpc-go, which only acks",
		Must: 0.3, Aim: 0.6, Unit: ratioUnit, of: ratio("connect", "per_second", bare),
	},
	{
		Name: "SendCommand → agent → ack recorded, one at a time, durable: p50", Against: "bare grpc-go + two fsyncs",
		Must: 1.5, Aim: 1.2, AtMost: true, Unit: ratioUnit, of: roundTrip,
	},
	{
		Name: "durable commands/s, 1,000 VMs in parallel", Against: "bare grpc-go, not durable",
		Must: 0.25, Aim: 0.5, Unit: ratioUnit, of: ratio("commands", "per_second", bare),
	},
	{
		Name: "10,000 VMs reconnect after kill -9: all sessions back", Against: "–",
		Must: 30, Aim: 10, AtMost: true, Unit: secondUnit, of: value("reconnect", "seconds"),
	},
	{
		Name: "ListVMs, a page of 100: p99 while 4,000 heartbeats/s arrive at 10,000 VMs", Against: "–",
		Must: 100, Aim: 20, AtMost: true, Unit: milliUnit, of: value("reads", "list_p99_ms"),
	},
	{
		Name: "GetVM: p99 at the same time", Against: "–",
		Must: 100, Aim: 20, AtMost: true, Unit: milliUnit, of: value("reads", "get_p99_ms"),
	},
	{
		Name: "start with 100,000 known VMs and 1,000,000 finished commands", Against: "–",
		Must: 3, Aim: 1, AtMost: true, Unit: secondUnit, of: value("start", "seconds"),
	},
}

// Of returns what the results say of the target: a value for each run.
func (t Target) Of(r Results) Spread { return SpreadOf(t.of(r)) }

// Judge holds the median against the target.
func (t Target) Judge(s Spread) Verdict {
	meets := func(bound float64) bool {
		if t.AtMost {
			return s.Median <= bound
		}
		return s.Median >= bound
	}
	switch {
	case s.Median != s.Median: // NaN
		return NotMeasured
	case meets(t.Aim):
		return AimMet
	case meets(t.Must):
		return MustMet
	default:
		return Missed
	}
}

func value(measure, name string) func(Results) []float64 {
	return func(r Results) []float64 { return r.Of(measure, controller, name, 0) }
}

// ratio is the controller's value over that of another server in the same run.
func ratio(measure, name, server string) func(Results) []float64 {
	return func(r Results) []float64 {
		return divide(r.Of(measure, controller, name, 0), r.Of(measure, server, name, 0))
	}
}

// roundTrip is the controller's time over that of the bare server and two syncs
// of the disk.
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
