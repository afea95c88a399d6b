package engine

import (
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxGone is how many VMs that are not connected the cache holds, besides those that
// are.
const maxGone = 1000

// cache has VMs as they were committed. Only the engine's loop puts them there. One
// may be ahead of its row, but only in what its heartbeats and acks hold as well. A
// change by another writer is noticed when the feed reads it, or else by the version
// when the VM is written.
type cache struct {
	mu   sync.RWMutex
	vms  map[fleet.VMID]*held
	gone int // how many of them are not connected
	// watched has the VMs that were outdated since watch; nil after unwatch.
	watched map[fleet.VMID]bool
}

func newCache() *cache { return &cache{vms: map[fleet.VMID]*held{}} }

// get returns a VM if it is held and not outdated.
func (c *cache) get(id fleet.VMID) (held, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := c.vms[id]
	if h == nil || h.version == 0 {
		return held{}, false
	}
	return *h, true
}

// put takes over what a group has loaded and committed.
func (c *cache) put(entries map[fleet.VMID]*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, en := range entries {
		if en.vm.ID == "" {
			continue
		}
		h := c.vms[id]
		if h == nil {
			h = new(held)
			c.vms[id] = h
		} else if !h.vm.Connected {
			c.gone--
		}
		if *h = en.afterwards(); !h.vm.Connected {
			c.gone++
		}
		if c.watched[id] { // since it was loaded
			h.version = 0
		}
	}
	c.forgetGone(maxGone)
}

func (c *cache) remove(id fleet.VMID) {
	if old, ok := c.vms[id]; ok {
		if !old.vm.Connected {
			c.gone--
		}
		delete(c.vms, id)
	}
}

// outdate has a VM loaded again, since another writer has changed it. What its row
// lacks is kept.
func (c *cache) outdate(id fleet.VMID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched != nil {
		c.watched[id] = true
	}
	if h := c.vms[id]; h != nil {
		h.version = 0
	}
}

// outdateAll is outdate for every VM that is held.
func (c *cache) outdateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.vms {
		if h.version = 0; c.watched != nil {
			c.watched[id] = true
		}
	}
}

// drop forgets a VM whose row is lost.
func (c *cache) drop(id fleet.VMID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched != nil {
		c.watched[id] = true
	}
	c.remove(id)
}

// epoch returns the epoch of a VM as far as it is held, also if it is outdated.
func (c *cache) epoch(id fleet.VMID) fleet.Epoch {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if h := c.vms[id]; h != nil {
		return h.vm.Epoch
	}
	return 0
}

// watch begins to note which VMs are outdated, so that put does not hold them as they
// were loaded before.
func (c *cache) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = map[fleet.VMID]bool{}
}

func (c *cache) unwatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = nil
}

// forget drops the VMs that are not connected: rows of the others are never purged.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetGone(0)
}

// forgetGone leaves at most this many that are not connected. None of those is ahead
// of its row.
func (c *cache) forgetGone(most int) {
	for id, h := range c.vms {
		if c.gone <= most {
			return
		}
		if !h.vm.Connected {
			c.remove(id)
		}
	}
}

// clear empties the cache.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.vms)
	c.gone = 0
}

// ahead returns the VMs whose rows lack something and were written before then.
func (c *cache) ahead(then time.Time) []fleet.VMID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var ids []fleet.VMID
	for id, h := range c.vms {
		if h.ahead && h.writtenAt.Before(then) {
			ids = append(ids, id)
		}
	}
	return ids
}

// completed returns v with what the row that it was read from lacks.
func (c *cache) completed(v fleet.VM) fleet.VM {
	h := held{vm: v}
	c.complete(&h)
	return h.vm
}

// complete adds to a VM that was loaded what its row lacks.
func (c *cache) complete(h *held) {
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
		h.vm, h.ahead = h.vm.WithLoad(known.vm), true
	}
}
