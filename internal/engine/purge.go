package engine

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// Retention is how long each class is kept. Zero is forever.
type Retention struct {
	Events     time.Duration
	Heartbeats time.Duration
	// Commands counts from when a command ended.
	Commands time.Duration
	// VMs counts from when a VM that is not connected was last seen.
	VMs     time.Duration
	Changes time.Duration
	// Unjournaled is whether events go by their retention also when they are not marked as
	// journaled.
	Unjournaled bool
}

// purgeBatch is how many rows of a class are removed at a time, so that a purge does
// not keep commits waiting for long: rows of heartbeats are large.
const purgeBatch = 200

// Purge removes what is older than the retention, in bounded steps, until nothing is
// left to remove. It returns how many rows it removed, also with an error. Events that
// are not marked as journaled stay unless r says otherwise. What is older is judged by
// PurgeTime.
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
	through, err := e.Driver.Mark(ctx, journaled)
	if err != nil {
		return 0, unavailable(ctx, err)
	}
	if r.Unjournaled {
		through = math.MaxInt64
	}
	c := store.Cutoffs{
		Now: later(asOf, now), Changes: before(r.Changes), Heartbeats: before(r.Heartbeats), Events: before(r.Events),
		EventsThrough: through, Commands: before(r.Commands), VMs: before(r.VMs),
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

// PurgeTime returns the time as of which is purged when the clock shows now: not later
// than now, and at most a day later for each hour of this process since the last time, also over
// restarts. So a clock that jumps forward does not cost at once what was within its
// retention. With an error it returns the time as well, and that is not durable.
func (e *Engine) PurgeTime(ctx context.Context, now time.Time) (time.Time, error) {
	asOf, err := e.purgeTime(ctx, now)
	return earlier(asOf, now), err
}

// purgeTime advances the purge clock and stores what it shows.
func (e *Engine) purgeTime(ctx context.Context, now time.Time) (time.Time, error) {
	asOf := e.purging.advance(now, e.Clock())
	return asOf, e.do(ctx, &op{run: func(g *group) error {
		g.mark(purgedAsOf, asOf.UnixNano())
		return nil
	}})
}

// purgedAsOf is the mark of what the purge clock showed last, in Unix nanoseconds.
const purgedAsOf = "purged_as_of"

const (
	// purgeSpeed is how much faster than time the purge clock runs, at most.
	purgeSpeed = 24
	// purgePause is how long after the last time the purge clock goes on, at most, as a
	// bound on what is multiplied.
	purgePause = 365 * 24 * time.Hour
)

// purgeClock follows the clock in both directions, at purgeSpeed: while it is behind, rows are
// kept that are past their time, and while it is ahead, rows that are dated later than
// now are not taken for those of a wrong clock.
type purgeClock struct {
	mu    sync.Mutex
	shown time.Time // zero before the first purge of a database
	last  time.Time // when it last advanced in this process, or this began
	jump  wallclock.Jump
}

// openPurgeClock goes on with what the database has.
func (e *Engine) openPurgeClock(ctx context.Context) error {
	shown, err := e.Driver.Mark(ctx, purgedAsOf)
	if err == nil && shown != 0 {
		e.purging.shown = time.Unix(0, shown).UTC()
	}
	e.purging.last = e.Clock()
	return err
}

// moved takes over a step of the clock: no time has passed in it.
func (p *purgeClock) moved(j wallclock.Jump) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jump, p.last = j, p.last.Add(j.By)
}

// advance returns what the purge clock shows at now, a time that was read not long before
// present.
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
