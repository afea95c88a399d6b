package session

import (
	"sync"
	"time"
)

const (
	// longWait is how long storing a message may take before later messages count as having
	// waited.
	longWait = time.Second
	// readersGrace is how long readers get to catch up after a wait.
	readersGrace = time.Second
)

// unstored holds the time of arrival of each message that was read from an agent and is not
// stored yet, except for heartbeats in a group. The zero value is ready.
type unstored struct {
	mu   sync.Mutex
	next uint64
	at   map[uint64]time.Time
}

// add stamps a message with its time of arrival and keeps that until done is called. oldest
// misses no message that was stamped before it, because both are one step. After a long
// wait done takes effect a little later: the next messages in the stream arrived long ago,
// too, but are read only now.
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
		if time.Since(began) > longWait {
			// The next message may need a second attempt to be stored.
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

// oldest returns when the first of the messages arrived, or now if there is none.
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
