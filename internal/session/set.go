package session

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// sessionSet holds the sessions that have not ended, and which of them is the newest of
// its VM.
type sessionSet struct {
	mu      sync.RWMutex
	newest  map[fleet.VMID]*Session
	live    map[*Session]bool // including superseded ones
	present int               // calls of enter without their leave
	closed  bool
	empty   chan struct{} // closed when present falls to zero; nil while waitEmpty is not called
}

// enter announces a session that is about to be opened; leave must follow. It returns
// false after shut.
func (ss *sessionSet) enter() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.closed {
		return false
	}
	ss.present++
	return true
}

// leave undoes an enter. The session must not run any more.
func (ss *sessionSet) leave() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.present--
	if ss.present == 0 && ss.empty != nil {
		close(ss.empty)
		ss.empty = nil
	}
}

// add makes s the session of its VM if it is the newest. It returns the session that is
// superseded by that: the previous one, s itself, or nil.
func (ss *sessionSet) add(s *Session) (superseded *Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.live[s] = true
	current := ss.newest[s.vm]
	if current != nil && current.epoch > s.epoch {
		return s
	}
	if current != nil {
		current.live.Dec()
	}
	s.live.Inc()
	ss.newest[s.vm] = s
	return current
}

// remove forgets s. It returns false when s was not the newest session of its VM.
func (ss *sessionSet) remove(s *Session) (newest bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.live, s)
	if ss.newest[s.vm] != s {
		return false
	}
	s.live.Dec()
	delete(ss.newest, s.vm)
	return true
}

// of returns the newest session of a VM; nil when it has no live one.
func (ss *sessionSet) of(vm fleet.VMID) *Session {
	ss.mu.RLock()
	defer ss.mu.RUnlock()
	return ss.newest[vm]
}

// all returns the newest session of each VM.
func (ss *sessionSet) all() []*Session {
	ss.mu.RLock()
	defer ss.mu.RUnlock()
	return slices.AppendSeq(make([]*Session, 0, len(ss.newest)), maps.Values(ss.newest))
}

func (ss *sessionSet) count() int {
	ss.mu.RLock()
	defer ss.mu.RUnlock()
	return len(ss.newest)
}

// shut makes enter fail from now on and returns the live sessions. One that has entered
// may still be added.
func (ss *sessionSet) shut() []*Session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.closed = true
	return slices.Collect(maps.Keys(ss.live))
}

// waitEmpty waits until every enter has been followed by its leave, or ctx is done.
func (ss *sessionSet) waitEmpty(ctx context.Context) {
	ss.mu.Lock()
	if ss.present == 0 {
		ss.mu.Unlock()
		return
	}
	if ss.empty == nil {
		ss.empty = make(chan struct{})
	}
	empty := ss.empty
	ss.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}
