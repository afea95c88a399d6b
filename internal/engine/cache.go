package engine

import (
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxDisconnected is how many disconnected VMs the cache holds, besides all connected ones.
const maxDisconnected = 1000

// cache holds VMs as they were committed. Only the engine's loop adds them. A VM may be
// newer than its row, but only in fields that its heartbeats and acks contain as well. A
// change by another writer is detected when the feed reads it, or else by its version when
// the VM is written.
type cache struct {
	mu           sync.RWMutex
	vms          map[fleet.VMID]*cachedVM
	disconnected int // how many VMs are not connected
	// invalidated contains the VMs that were invalidated since trackInvalidated; nil after
	// stopTracking.
	invalidated map[fleet.VMID]bool
}

func newCache() *cache { return &cache{vms: map[fleet.VMID]*cachedVM{}} }

// get returns a VM if it is cached and valid.
func (c *cache) get(id fleet.VMID) (cachedVM, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := c.vms[id]
	if h == nil || h.version == 0 {
		return cachedVM{}, false
	}
	return *h, true
}

// put stores the VMs that a group has loaded and committed.
func (c *cache) put(entries map[fleet.VMID]*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, en := range entries {
		if en.vm.ID == "" {
			continue
		}
		h := c.vms[id]
		if h == nil {
			h = new(cachedVM)
			c.vms[id] = h
		} else if !h.vm.Connected {
			c.disconnected--
		}
		if *h = en.toCache(); !h.vm.Connected {
			c.disconnected++
		}
		if c.invalidated[id] { // invalidated since it was loaded
			h.version = 0
		}
	}
	c.forgetDisconnected(maxDisconnected)
}

func (c *cache) remove(id fleet.VMID) {
	if old, ok := c.vms[id]; ok {
		if !old.vm.Connected {
			c.disconnected--
		}
		delete(c.vms, id)
	}
}

// invalidate makes the next get of a VM load it again, because another writer has changed
// it. What its row lacks is kept.
func (c *cache) invalidate(id fleet.VMID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.invalidated != nil {
		c.invalidated[id] = true
	}
	if h := c.vms[id]; h != nil {
		h.version = 0
	}
}

// invalidateAll is invalidate for every cached VM.
func (c *cache) invalidateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.vms {
		if h.version = 0; c.invalidated != nil {
			c.invalidated[id] = true
		}
	}
}

// drop removes a VM whose row is lost.
func (c *cache) drop(id fleet.VMID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.invalidated != nil {
		c.invalidated[id] = true
	}
	c.remove(id)
}

// epoch returns the epoch of a cached VM, valid or not.
func (c *cache) epoch(id fleet.VMID) fleet.Epoch {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if h := c.vms[id]; h != nil {
		return h.vm.Epoch
	}
	return 0
}

// trackInvalidated starts to record which VMs are invalidated, so that put does not store a
// version that was loaded before.
func (c *cache) trackInvalidated() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.invalidated = map[fleet.VMID]bool{}
}

func (c *cache) stopTracking() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.invalidated = nil
}

// forget drops the disconnected VMs: rows of connected ones are never purged.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetDisconnected(0)
}

// forgetDisconnected drops disconnected VMs until at most this many are left. None of them
// is newer than its row.
func (c *cache) forgetDisconnected(most int) {
	for id, h := range c.vms {
		if c.disconnected <= most {
			return
		}
		if !h.vm.Connected {
			c.remove(id)
		}
	}
}

// size returns how many VMs are cached.
func (c *cache) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.vms)
}

// clear empties the cache.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.vms)
	c.disconnected = 0
}

// dirtyBefore returns the dirty VMs whose rows were written before then.
func (c *cache) dirtyBefore(then time.Time) []fleet.VMID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var ids []fleet.VMID
	for id, h := range c.vms {
		if h.dirty && h.writtenAt.Before(then) {
			ids = append(ids, id)
		}
	}
	return ids
}

// completed returns v with what its row lacks.
func (c *cache) completed(v fleet.VM) fleet.VM {
	h := cachedVM{vm: v}
	c.complete(&h)
	return h.vm
}

// complete adds what its row lacks to a VM that was loaded.
func (c *cache) complete(h *cachedVM) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	known := c.vms[h.vm.ID]
	if known == nil {
		return
	}
	if known.version == h.version {
		h.writtenAt = known.writtenAt
	}
	if known.vm.LastSeenAt.After(h.vm.LastSeenAt) {
		h.vm, h.dirty = h.vm.WithLoad(known.vm), true
	}
}
