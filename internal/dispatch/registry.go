package dispatch

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// registry holds the newest session of each VM that has a live one, and counts
// all that have not left.
type registry struct {
	mu       sync.RWMutex
	sessions map[fleet.VMID]*Session
	present  int
	empty    chan struct{} // closed when present falls to zero, if anybody waits
}

// add makes s its VM's session if it is the newest. It returns the one that is
// superseded by that: the one before, or s itself, or nil.
func (r *registry) add(s *Session) (superseded *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present++
	current := r.sessions[s.vm]
	if current != nil && current.epoch > s.epoch {
		return s
	}
	r.sessions[s.vm] = s
	return current
}

// remove forgets s. It returns false when s was not its VM's newest session.
func (r *registry) remove(s *Session) (newest bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if newest = r.sessions[s.vm] == s; newest {
		delete(r.sessions, s.vm)
	}
	if r.present--; r.present == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
	return newest
}

func (r *registry) wake(vm fleet.VMID) {
	r.mu.RLock()
	s := r.sessions[vm]
	r.mu.RUnlock()
	if s != nil {
		s.wakeUp()
	}
}

func (r *registry) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sessions)
}

func (r *registry) all() []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.sessions))
}

// waitEmpty waits until every session has left, or ctx ends.
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
