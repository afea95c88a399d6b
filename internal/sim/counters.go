package sim

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Snapshot contains the counts of agents at one moment. The fields are read one after the
// other, not atomically.
type Snapshot struct {
	Connected  int64 // accepted streams that are up now
	Registered int64 // VMs whose runner is registered now
	Spent      int64 // of these, VMs whose runner has run its only job

	Connects          int64 // accepted streams
	Refused           int64 // agents that gave up: accepted was false
	RunnersRegistered int64
	RegisterFailures  int64 // registrations that were acked and then failed
	RunnerCrashes     int64 // jobs that ended with a crash
	Drops             int64 // TCP connections cut
	Restarts          int64 // agents crashed, or exited without a registration
	Reopens           int64 // streams closed to open another one immediately
	Shutdowns         int64 // executed shutdown commands
	Replaced          int64 // spent VMs of a Fleet, each replaced by a new one
	VMStarted         int64 // vm_started acknowledged over HTTP

	Commands   map[string]int64 // received, by type
	Duplicates int64            // commands whose id this boot had seen before
	Unread     int64            // commands left in the agent's buffer and never read
	Overflows  int64            // messages that the agent's full buffer dropped

	// RegisterRepeats counts register_runner commands for a VM whose runner was registered,
	// which a healthy controller never sends. The controller must know of the registration
	// once an event or heartbeat that proves it was sent Timing.ProofGrace ago on one
	// stream.
	RegisterRepeats int64
	// RegisterRaces counts such commands that the controller may send: before it must know,
	// for a VM with two agents, after Quirks.RepeatedStarts, or for an agent whose
	// heartbeats contain no state, which could have restarted.
	RegisterRaces int64

	Acks       int64 // sent, duplicates included
	AcksLost   int64 // suppressed by Quirks.LostAcks
	Events     int64 // sent, over HTTP those that were acknowledged
	Heartbeats int64 // sent, over HTTP those that were answered with 200
	LateBeats  int64 // heartbeats held back by Quirks.LateHeartbeats
	Posts      int64 // events and heartbeats that went over HTTP
	Strays     int64 // foreign and malformed messages sent

	// Errors are counted by kind. For the end of a stream: the gRPC code from the
	// controller, in lower case, "ended" for an end without an error, "connection" for a
	// transport error, "dial" if the controller could not be reached. Other kinds are
	// "send", "vm_started", "http" for other requests, and "register_runner" for a
	// registration without parameters. Ends caused by the agent itself are not errors.
	Errors map[string]int64
}

// TotalCommands returns the number of commands received.
func (s Snapshot) TotalCommands() int64 { return total(s.Commands) }

// TotalErrors returns the number of errors of all kinds.
func (s Snapshot) TotalErrors() int64 { return total(s.Errors) }

func total(m map[string]int64) int64 {
	var sum int64
	for _, n := range m {
		sum += n
	}
	return sum
}

// counters is shared by the agents of a fleet.
type counters struct {
	connected, registered, spent atomic.Int64

	connects, refused, runnersRegistered  atomic.Int64
	registerFailures, runnerCrashes       atomic.Int64
	lateBeats                             atomic.Int64
	drops, restarts, reopens, shutdowns   atomic.Int64
	replaced, vmStarted, posts            atomic.Int64
	duplicates, unread, overflows         atomic.Int64
	registerRepeats, registerRaces        atomic.Int64
	acks, acksLost, events, beats, strays atomic.Int64

	commands, errors tally
}

func (c *counters) snapshot() Snapshot {
	return Snapshot{
		Connected:         c.connected.Load(),
		Registered:        c.registered.Load(),
		Spent:             c.spent.Load(),
		Connects:          c.connects.Load(),
		Refused:           c.refused.Load(),
		RunnersRegistered: c.runnersRegistered.Load(),
		RegisterFailures:  c.registerFailures.Load(),
		RunnerCrashes:     c.runnerCrashes.Load(),
		Drops:             c.drops.Load(),
		Restarts:          c.restarts.Load(),
		Reopens:           c.reopens.Load(),
		Shutdowns:         c.shutdowns.Load(),
		Replaced:          c.replaced.Load(),
		VMStarted:         c.vmStarted.Load(),
		Commands:          c.commands.copy(),
		Duplicates:        c.duplicates.Load(),
		Unread:            c.unread.Load(),
		Overflows:         c.overflows.Load(),
		RegisterRepeats:   c.registerRepeats.Load(),
		RegisterRaces:     c.registerRaces.Load(),
		Acks:              c.acks.Load(),
		AcksLost:          c.acksLost.Load(),
		Events:            c.events.Load(),
		Heartbeats:        c.beats.Load(),
		LateBeats:         c.lateBeats.Load(),
		Posts:             c.posts.Load(),
		Strays:            c.strays.Load(),
		Errors:            c.errors.copy(),
	}
}

const (
	tallyLimit = 64
	tallyRest  = "other"
)

// tally counts by name. The controller chooses some of the names, so names beyond
// tallyLimit are counted together.
type tally struct {
	mu sync.Mutex
	n  map[string]int64
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]int64)
	}
	if _, known := t.n[name]; !known && len(t.n) >= tallyLimit {
		name = tallyRest
	}
	t.n[name]++
}

func (t *tally) copy() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		return map[string]int64{}
	}
	return maps.Clone(t.n)
}
