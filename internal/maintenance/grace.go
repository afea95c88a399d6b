package maintenance

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// After a late tick the whole process may have been suspended: messages that arrived
// meanwhile have not been read.
const (
	// lateTick is how long after the previous one a tick is late.
	lateTick = time.Second
	// readersGrace is how long readers then get to catch up.
	readersGrace = time.Second
)

// grace postpones the judgement of deadlines after a late tick. Its zero value is ready. It is
// for one goroutine.
type grace struct {
	last, frozen, until time.Time
}

// asOf returns the time as of which deadlines may be judged at a tick: now or, for
// readersGrace after a late tick, the time of the tick before that.
func (g *grace) asOf(now time.Time) time.Time {
	if now.Before(g.last) { // the clock was set back
		g.until = time.Time{}
	}
	if !g.last.IsZero() && now.Sub(g.last) > lateTick {
		if !now.Before(g.until) { // otherwise the time is frozen already
			g.frozen = g.last
		}
		g.until = now.Add(readersGrace)
	}
	g.last = now
	if now.Before(g.until) {
		return g.frozen
	}
	return now
}

// move adjusts g after a step of the clock.
func (g *grace) move(by time.Duration) {
	g.last, g.frozen, g.until = wallclock.Shift(g.last, by), wallclock.Shift(g.frozen, by), wallclock.Shift(g.until, by)
}
