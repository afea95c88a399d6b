package dispatch

import (
	"sync"
	"time"
)

// unstored has when each message arrived that was read from an agent and is not
// in the store yet, but for heartbeats, which are grouped. The zero value is
// ready.
type unstored struct {
	mu   sync.Mutex
	next uint64
	at   map[uint64]time.Time
}

// add adds a message until it is done.
func (u *unstored) add(arrived time.Time) (done func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[uint64]time.Time{}
	}
	id := u.next
	u.next++
	u.at[id] = arrived
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.at, id)
	}
}

// oldest returns when the first of them arrived, or now if there is none.
func (u *unstored) oldest(now time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, at := range u.at {
		if at.Before(now) {
			now = at
		}
	}
	return now
}

// What the sweeper does after it was late: the whole process may have stood
// still, and what has arrived meanwhile was not read.
const (
	// lateTick is how long after the one before a tick is late.
	lateTick = time.Second
	// readersGrace is what the readers get then to catch up.
	readersGrace = time.Second
)

// grace puts off judgement after a late tick. Its zero value is ready. One
// goroutine uses it.
type grace struct {
	last, frozen, until time.Time
}

// asOf returns the time as of which deadlines may be judged at a tick: now, but
// for readersGrace after a late tick the time of the tick before that.
func (g *grace) asOf(now time.Time) time.Time {
	if now.Before(g.last) { // the clock was set back
		g.until = time.Time{}
	}
	if !g.last.IsZero() && now.Sub(g.last) > lateTick {
		if !now.Before(g.until) { // else it is frozen already
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
