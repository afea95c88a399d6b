package dispatch

import (
	"sync"
	"time"
)

// unstored has when each message arrived that was read from an agent and is not
// stored yet, except for heartbeats in a group. The zero value is ready.
type unstored struct {
	mu   sync.Mutex
	next uint64
	at   map[uint64]time.Time
}

// add stamps a message with when it arrived and keeps that until it is done. oldest
// misses no message that was stamped before: both are one step. After a long wait
// done takes effect a little later: the messages after this one in its stream arrived
// long ago, too, and are read only now.
func (u *unstored) add(stamp func() time.Time) (arrived time.Time, done func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[uint64]time.Time{}
	}
	id, began := u.next, time.Now()
	u.next++
	arrived = stamp()
	u.at[id] = arrived
	return arrived, func() {
		if time.Since(began) > lateTick {
			// The next message may be stored at the second attempt only.
			time.AfterFunc(firstRetry+readersGrace, func() { u.forget(id) })
			return
		}
		u.forget(id)
	}
}

func (u *unstored) forget(id uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.at, id)
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
	// lateTick is how long after the one before a tick is late, and how long storing a
	// message may take before it counts as a long wait.
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
