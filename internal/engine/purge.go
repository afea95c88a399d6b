package engine

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// Retention is how long each class is kept. Zero means forever.
type Retention struct {
	Events     time.Duration
	Heartbeats time.Duration
	// Commands counts from the end of a command.
	Commands time.Duration
	// VMs counts from when a VM that is not connected was last seen.
	VMs     time.Duration
	Changes time.Duration
	// Audit counts from when an event was requested.
	Audit time.Duration
	// Unjournaled is whether events that are not marked as journaled are removed as well.
	Unjournaled bool
}

// purgeBatch is how many rows of a class are removed at a time, so that a purge does not
// delay commits for long: rows of heartbeats are large.
const purgeBatch = 200

// Purge removes what is older than the retention, in bounded steps, until nothing is left
// to remove. It returns the number of removed rows, even with an error. Events that are not
// marked as journaled are kept unless r says otherwise. Ages are relative to PurgeTime.
func (e *Engine) Purge(ctx context.Context, r Retention, now time.Time) (int, error) {
	asOf, err := e.purgeTime(ctx, now)
	if err != nil {
		return 0, err
	}
	before := func(keep time.Duration) time.Time {
		if keep == 0 {
			return time.Time{}
		}
		return earlier(asOf, now).Add(-keep)
	}
	through, err := e.Driver.Mark(ctx, journaledMark)
	if err != nil {
		return 0, unavailable(ctx, err)
	}
	if r.Unjournaled {
		through = math.MaxInt64
	}
	c := store.Cutoffs{
		Now: later(asOf, now), Changes: before(r.Changes), Heartbeats: before(r.Heartbeats), Events: before(r.Events),
		EventsThrough: through, Commands: before(r.Commands), VMs: before(r.VMs), Audit: before(r.Audit),
	}
	defer e.cache.forget()
	for total := 0; ; {
		n, err := e.Driver.Purge(ctx, c, purgeBatch)
		total += n
		if err != nil || n == 0 {
			return total, unavailable(ctx, err)
		}
	}
}

// PurgeTime returns the time against which ages are measured when the clock shows now: not
// later than now, and advanced by at most a day for each hour of this process since the
// last call, across restarts too. So a clock that jumps forward does not immediately remove
// what was within its retention. With an error it returns a time that is not durable.
func (e *Engine) PurgeTime(ctx context.Context, now time.Time) (time.Time, error) {
	asOf, err := e.purgeTime(ctx, now)
	return earlier(asOf, now), err
}

// purgeTime advances the purge clock and stores what it shows.
func (e *Engine) purgeTime(ctx context.Context, now time.Time) (time.Time, error) {
	asOf := e.purging.advance(now, e.Clock())
	return asOf, e.do(ctx, &op{run: func(g *group) error {
		g.mark(purgedAsOfMark, asOf.UnixNano())
		return nil
	}})
}

// purgedAsOfMark is the mark of the last purge time, in Unix nanoseconds.
const purgedAsOfMark = "purged_as_of"

const (
	// purgeSpeed is how much faster than real time the purge clock may run.
	purgeSpeed = 24
	// purgePause is the longest pause since the last call that counts, to bound the
	// product.
	purgePause = 365 * 24 * time.Hour
)

// purgeClock follows the clock in both directions, at purgeSpeed: while it is behind,
// expired rows are kept, and while it is ahead, rows dated later than now are not mistaken
// for those of a wrong clock.
type purgeClock struct {
	mu    sync.Mutex
	shown time.Time // zero before the first purge of a database
	last  time.Time // when it last advanced in this process, or the start of the process
	jump  wallclock.Jump
}

// openPurgeClock continues with the stored purge time.
func (e *Engine) openPurgeClock(ctx context.Context) error {
	shown, err := e.Driver.Mark(ctx, purgedAsOfMark)
	if err == nil && shown != 0 {
		e.purging.shown = time.Unix(0, shown).UTC()
	}
	e.purging.last = e.Clock()
	return err
}

// applyJump applies a clock step, in which no time has passed.
func (p *purgeClock) applyJump(j wallclock.Jump) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jump, p.last = j, p.last.Add(j.By)
}

// advance returns the purge time at now, a time that was read shortly before present.
func (p *purgeClock) advance(now, present time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now = now.Add(p.jump.Stale(now, present))
	step := purgeSpeed * min(max(0, now.Sub(p.last)), purgePause)
	if p.shown.IsZero() {
		p.shown = now
	}
	p.shown, p.last = later(earlier(now, p.shown.Add(step)), p.shown.Add(-step)), now
	return p.shown
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
