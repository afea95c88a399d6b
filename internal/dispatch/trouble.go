package dispatch

import (
	"log/slog"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// How many log lines of one kind about one VM are written in how long.
const (
	troubleLines  = 10
	troublePeriod = time.Minute
)

// maxTroubles is how many kinds and VMs are told apart at a time. Beyond it those
// that have been quiet are forgotten, and if there are none, all.
const maxTroubles = 10_000

// trouble is a kind of log line that an agent or a fault can cause without end.
type trouble string

// The kinds that are about one VM.
const (
	troubleRefused    trouble = "refused"
	troubleReported   trouble = "reported"
	troubleSuperseded trouble = "superseded"
	troubleSuspect    trouble = "suspect"
	troubleAck        trouble = "ack"
	troubleContested  trouble = "contested"
	troubleCrashed    trouble = "crashed"
)

// The kinds that are about the controller, whatever the VM: what every session
// meets at once is limited together.
const (
	troubleHeld     trouble = "held"
	troubleDelivery trouble = "delivery"
	troubleToken    trouble = "token"
	troubleFailed   trouble = "registration failed"
	troubleStarted  trouble = "started"
	troubleUnended  trouble = "unended"
	troubleJournal  trouble = "journal"
)

// troubles limits log lines. The zero value is ready. What is left out is
// counted.
type troubles struct {
	mu    sync.Mutex
	known map[troubleKey]*troubleCount
}

type troubleKey struct {
	kind trouble
	vm   fleet.VMID // empty for what is about the controller
}

type troubleCount struct {
	since      time.Time // when the period began
	lines      int       // written in it
	suppressed int       // left out since the last
}

// limited returns log for one line of a kind about a VM, or a log that discards it
// when there were too many. Of what was discarded the next line tells the number.
func (d *Dispatcher) limited(log *slog.Logger, kind trouble, vm fleet.VMID) *slog.Logger {
	switch suppressed, ok := d.troubles.due(kind, vm, d.Clock()); {
	case !ok:
		return slog.New(slog.DiscardHandler)
	case suppressed > 0:
		return log.With(keySuppressed, suppressed)
	default:
		return log
	}
}

// due reports whether a line may be written now, and how many were left out
// since the last.
func (t *troubles) due(kind trouble, vm fleet.VMID, now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.count(troubleKey{kind, vm}, now)
	if c.over(now) {
		c.since, c.lines = now, 0
	}
	if c.lines == troubleLines {
		c.suppressed++
		return 0, false
	}
	c.lines++
	suppressed, c.suppressed = c.suppressed, 0
	return suppressed, true
}

func (t *troubles) count(key troubleKey, now time.Time) *troubleCount {
	if c := t.known[key]; c != nil {
		return c
	}
	if len(t.known) >= maxTroubles {
		t.forget(now)
	}
	if t.known == nil {
		t.known = map[troubleKey]*troubleCount{}
	}
	c := &troubleCount{since: now}
	t.known[key] = c
	return c
}

func (t *troubles) forget(now time.Time) {
	for key, c := range t.known {
		if c.over(now) {
			delete(t.known, key)
		}
	}
	if len(t.known) >= maxTroubles {
		clear(t.known)
	}
}

// over reports whether the period is; also when the clock was set back.
func (c *troubleCount) over(now time.Time) bool {
	age := now.Sub(c.since)
	return age < 0 || age >= troublePeriod
}
