package engine

import (
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// spare is room that groups before have left: most are as large as the last, and to
// make it anew for each would keep the garbage collector busy.
type spare struct {
	block block // for the loop

	mu      sync.Mutex
	entries []*entry
}

// How much room is kept.
const (
	maxSpareEntries = 1024
	maxSpareBytes   = 4 << 20
)

// entry returns the entry of a VM that nothing is known of.
func (s *spare) entry(vm fleet.VMID) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.entries)
	if n == 0 {
		return &entry{id: vm}
	}
	en := s.entries[n-1]
	s.entries = s.entries[:n-1]
	*en = entry{id: vm}
	return en
}

// keep takes back the room of a group that is over.
func (s *spare) keep(g *group) {
	if b := g.heartbeats; b != nil && cap(b.text)+cap(b.doc) <= maxSpareBytes {
		s.block = block{text: b.text[:0], doc: b.doc[:0], vms: b.vms[:0]}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, en := range g.entries {
		if len(s.entries) == maxSpareEntries {
			return
		}
		s.entries = append(s.entries, en)
	}
}
