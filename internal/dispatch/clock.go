package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// stamps are the times of receipt that were given.
type stamps struct {
	mu   sync.Mutex
	last int64 // in Unix nanoseconds; it moves with the clock
}

// receivedAt is the time now, later than every time it gave since the clock last jumped:
// the receive time of a report identifies it. After a jump back a time could come a
// second time; a file of the journal is not overwritten even then.
func (d *Dispatcher) receivedAt() time.Time {
	d.stamps.mu.Lock()
	defer d.stamps.mu.Unlock()
	return d.stamps.next(d.Clock())
}

func (s *stamps) next(now time.Time) time.Time {
	s.last = max(now.UnixNano(), s.last+1)
	return time.Unix(0, s.last).UTC()
}

// arrivedAt is receivedAt for a message of the session that l is of, with change applied
// to l. No jump comes between, which would move the one and not the other.
func (d *Dispatcher) arrivedAt(l *liveness, change func(fleet.Liveness, time.Time) fleet.Liveness) time.Time {
	d.stamps.mu.Lock()
	defer d.stamps.mu.Unlock()
	at := d.stamps.next(d.Clock())
	l.note(func(v fleet.Liveness) fleet.Liveness { return change(v, at) })
	return at
}

// followClock adopts the wall clock if it has jumped, and returns by how much. With an
// error not everything has moved with the latest jump yet: deadlines must not be judged
// before a call without one. The sweeper calls it.
func (d *Dispatcher) followClock(ctx context.Context) (by time.Duration, err error) {
	if !d.unmoved && d.Follow != nil && d.Follow.Off() != 0 {
		j, err := d.Engine.AdoptClock(ctx, d.adoptClock)
		if err != nil {
			return 0, err
		}
		if by = j.By; by != 0 {
			d.unmoved = true
			d.Log.Warn("the clock jumped", keyBy, by.String(), keyFrom, j.At.Add(-by), keyTo, j.At)
		}
	}
	if d.unmoved {
		err = d.Engine.MoveDeadlines(ctx)
		d.unmoved = err != nil
	}
	return by, err
}

// adoptClock adopts the wall clock, and moves what is known of the sessions with it.
// What is on its way to the engine is not moved: that does it.
func (d *Dispatcher) adoptClock() (j wallclock.Jump) {
	d.unstored.move(func() time.Duration {
		d.stamps.mu.Lock()
		defer d.stamps.mu.Unlock()
		j = d.Follow.Adopt()
		d.stamps.last += int64(j.By)
		d.configuredAt.Add(int64(j.By))
		for _, s := range d.registry.sessions() {
			s.alive.note(func(l fleet.Liveness) fleet.Liveness { return l.MoveClock(j.By) })
		}
		d.beats.move(j.By)
		return j.By
	})
	return j
}

// move moves the times of arrival by what step returns, with none added meanwhile.
func (u *unstored) move(step func() time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	by := step()
	for id, at := range u.at {
		u.at[id] = at.Add(by)
	}
}

// move moves what oldest returns.
func (b *heartbeats) move(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = moved(b.first, by)
	b.taken = moved(b.taken, by)
}

// move makes g go on after a step of the clock.
func (g *grace) move(by time.Duration) {
	g.last, g.frozen, g.until = moved(g.last, by), moved(g.frozen, by), moved(g.until, by)
}

// moved returns a time after a step of the clock; the zero time as it is.
func moved(t time.Time, by time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(by)
}
