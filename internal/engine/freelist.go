package engine

import (
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// freeList keeps memory of earlier groups for reuse: most groups are as large as the last
// one, and allocating the memory each time would keep the garbage collector busy.
type freeList struct {
	block block // used only by the engine's loop

	mu      sync.Mutex
	entries []*entry
}

// Limits on the memory that is kept.
const (
	maxFreeEntries = 1024
	maxFreeBytes   = 4 << 20
)

// entry returns an empty entry for a VM.
func (f *freeList) entry(vm fleet.VMID) *entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.entries)
	if n == 0 {
		return &entry{id: vm}
	}
	en := f.entries[n-1]
	f.entries = f.entries[:n-1]
	*en = entry{id: vm}
	return en
}

// keep reclaims the memory of a group that has ended.
func (f *freeList) keep(g *group) {
	if b := g.heartbeats; b != nil && cap(b.text)+cap(b.doc) <= maxFreeBytes {
		f.block = block{text: b.text[:0], doc: b.doc[:0], vms: b.vms[:0]}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, en := range g.entries {
		if len(f.entries) == maxFreeEntries {
			return
		}
		f.entries = append(f.entries, en)
	}
}
