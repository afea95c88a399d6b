package measure

import (
	"slices"
	"time"
)

// Sizes are the sizes of the measures.
type Sizes struct {
	FloodVMs int
	FloodFor time.Duration

	PacedVMs, PacedRate int
	PacedFor            time.Duration

	IdleVMs    int
	IdleSettle time.Duration // minimum

	ConnectVMs int

	RoundTrips int

	CommandVMs int
	CommandFor time.Duration

	ReconnectVMs int

	StormVMs  []int
	StormRate int // calls of each kind a second

	MultiplexedVMs, MultiplexedConns int
	MultiplexedBeat, MultiplexedFor  time.Duration

	ReadVMs, ReadRate int
	ReadFor           time.Duration

	StartVMs, StartCommands int

	GrowthVMs, GrowthStored []int
	GrowthRate              int
	GrowthFor               time.Duration
	GrowthCommands          int

	TLSVMs            int
	TLSFor, TLSSettle time.Duration
	TLSWarm           time.Duration

	// Warm is how long a load runs before the measurement.
	Warm time.Duration
}

// Full are the sizes for which the targets are defined.
var Full = Sizes{
	FloodVMs: 50, FloodFor: 10 * time.Second,
	PacedVMs: 2000, PacedRate: 4000, PacedFor: 15 * time.Second,
	IdleVMs: 10_000, IdleSettle: 40 * time.Second,
	ConnectVMs: 3000,
	RoundTrips: 2000,
	CommandVMs: 1000, CommandFor: 10 * time.Second,
	ReconnectVMs: 10_000,
	StormVMs:     []int{5000, 10_000, 20_000}, StormRate: 20,
	MultiplexedVMs: 100_000, MultiplexedConns: 120, MultiplexedBeat: 15 * time.Second, MultiplexedFor: 30 * time.Second,
	ReadVMs: 10_000, ReadRate: 4000, ReadFor: 20 * time.Second,
	StartVMs: 100_000, StartCommands: 1_000_000,
	GrowthVMs: []int{100, 1000, 10_000, 20_000}, GrowthStored: []int{10_000, 100_000, 1_000_000},
	GrowthRate: 4000, GrowthFor: 10 * time.Second, GrowthCommands: 4000,
	TLSVMs: 2000, TLSFor: 4 * time.Second, TLSWarm: time.Second, TLSSettle: 19 * time.Second,
	Warm: 5 * time.Second,
}

// Quick are sizes at which all measures together take less than a minute. They say nothing
// about speed.
var Quick = Sizes{
	FloodVMs: 5, FloodFor: 300 * time.Millisecond,
	PacedVMs: 20, PacedRate: 200, PacedFor: 500 * time.Millisecond,
	IdleVMs: 50, IdleSettle: time.Second,
	ConnectVMs: 50,
	RoundTrips: 50,
	CommandVMs: 20, CommandFor: 500 * time.Millisecond,
	ReconnectVMs: 50,
	StormVMs:     []int{50}, StormRate: 20,
	MultiplexedVMs: 60, MultiplexedConns: 4, MultiplexedBeat: 300 * time.Millisecond, MultiplexedFor: 600 * time.Millisecond,
	ReadVMs: 120, ReadRate: 200, ReadFor: 500 * time.Millisecond,
	StartVMs: 200, StartCommands: 2000,
	GrowthVMs: []int{10, 20}, GrowthStored: []int{100, 1000},
	GrowthRate: 200, GrowthFor: 300 * time.Millisecond, GrowthCommands: 50,
	TLSVMs: 20, TLSFor: 300 * time.Millisecond, TLSWarm: 100 * time.Millisecond, TLSSettle: 300 * time.Millisecond,
	Warm: 200 * time.Millisecond,
}

// UpTo returns the sizes without growth beyond this many VMs.
func (s Sizes) UpTo(vms int) Sizes {
	s.GrowthVMs, s.StormVMs = upTo(s.GrowthVMs, vms), upTo(s.StormVMs, vms)
	return s
}

func upTo(sizes []int, most int) (at []int) {
	for _, n := range sizes {
		at = append(at, min(n, most))
	}
	return slices.Compact(at)
}

// most returns the number of connections of the largest chosen measure.
func (s Sizes) most(chosen func(string) bool) int {
	n := 0
	for name, vms := range map[string]int{
		"flood": s.FloodVMs, "paced": s.PacedVMs, "idle": s.IdleVMs, "connect": s.ConnectVMs,
		"commands": s.CommandVMs, "reconnect": s.ReconnectVMs, "reads": s.ReadVMs,
		"tls": s.TLSVMs, "multiplexed": s.MultiplexedConns,
		"growth-vms": slices.Max(s.GrowthVMs), "storm": slices.Max(s.StormVMs), "growth-stored": growthAtOnce,
	} {
		if chosen(name) {
			n = max(n, vms)
		}
	}
	return n
}
