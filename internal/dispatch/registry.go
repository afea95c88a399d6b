package dispatch

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// registry holds the sessions that have not left, and which of them is its VM's
// newest.
type registry struct {
	mu      sync.RWMutex
	newest  map[fleet.VMID]*Session
	live    map[*Session]bool // superseded ones too
	present int               // who has entered and not left
	closed  bool
	empty   chan struct{} // closed when present falls to zero, if anybody waits
}

// enter announces a session that is about to be opened; leave must follow. It
// returns false when none may begin any more.
func (r *registry) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.present++
	return true
}

// leave takes back an enter. Nothing of the session may be under way any more.
func (r *registry) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present--
	if r.present == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// add makes s its VM's session if it is the newest. It returns the one that is
// superseded by that: the one before, or s itself, or nil.
func (r *registry) add(s *Session) (superseded *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[s] = true
	current := r.newest[s.vm]
	if current != nil && current.epoch > s.epoch {
		return s
	}
	r.newest[s.vm] = s
	return current
}

// remove forgets s. It returns false when s was not its VM's newest session.
func (r *registry) remove(s *Session) (newest bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, s)
	if r.newest[s.vm] != s {
		return false
	}
	delete(r.newest, s.vm)
	return true
}

// session returns the VM's newest session; nil when it has no live one.
func (r *registry) session(vm fleet.VMID) *Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.newest[vm]
}

// sessions returns the newest session of each VM.
func (r *registry) sessions() []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.AppendSeq(make([]*Session, 0, len(r.newest)), maps.Values(r.newest))
}

func (r *registry) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.newest)
}

// shut lets nobody enter any more and returns the sessions there are. One that
// has entered may still be added.
func (r *registry) shut() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return slices.Collect(maps.Keys(r.live))
}

// waitEmpty waits until all who entered have left, or ctx ends.
func (r *registry) waitEmpty(ctx context.Context) {
	r.mu.Lock()
	if r.present == 0 {
		r.mu.Unlock()
		return
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	empty := r.empty
	r.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}
