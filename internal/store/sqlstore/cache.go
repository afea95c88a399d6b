package sqlstore

import (
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxGone is how many VMs the cache holds that are not connected. Those that are
// count on top.
const maxGone = 1000

// rowEvery is how often the row of a VM that sends nothing but heartbeats is
// written. What the row lacks until then is in the heartbeats, which are
// durable, and ResetSessions finds it there after a crash.
const rowEvery = time.Minute

// cache has VMs as they were committed. The writer alone puts them there, so
// none is older than its row; some are ahead of it, but only in what a heartbeat
// changes about every VM.
type cache struct {
	mu   sync.RWMutex
	vms  map[fleet.VMID]cachedVM
	gone int // how many of them are not connected
}

type cachedVM struct {
	vm    fleet.VM
	row   rowState
	queue queue
}

// rowState is what the writer knows of a VM's row.
type rowState struct {
	writtenAt time.Time // zero when that is not known
	ahead     bool      // the row lacks something
	lastBeat  int64     // the VM's last row of heartbeats, whether or not its own row says so
}

// queue is a VM's commands that have not ended, oldest first, unless they are
// not known. Most VMs have none or one. A queue does not change: each step makes
// another.
type queue struct {
	known bool
	open  []fleet.Command // at most maxQueued
}

// maxQueued is how many commands a queue holds, and maxHeld how many bytes the
// parameters of each may have. Other queues are not known.
const (
	maxQueued = 8
	maxHeld   = 1 << 10
)

func queueOf(open []fleet.Command) queue {
	if len(open) > maxQueued || slices.ContainsFunc(open, isLarge) {
		return queue{}
	}
	return queue{known: true, open: open}
}

func isLarge(c fleet.Command) bool { return c.Params.Size() > maxHeld }

// added returns the queue with one more command.
func (q queue) added(c fleet.Command) queue {
	if !q.known {
		return q
	}
	return queueOf(append(slices.Clone(q.open), c))
}

// moved returns the queue after a command of the VM has moved on.
func (q queue) moved(c fleet.Command) queue {
	i := slices.IndexFunc(q.open, func(o fleet.Command) bool { return o.Seq == c.Seq })
	if i < 0 {
		return q
	}
	switch {
	case !c.State.Terminal():
		q.open = slices.Clone(q.open)
		q.open[i] = c
	case len(q.open) == 1:
		q.open = nil // without room for the one that has ended
	default:
		q.open = slices.Delete(slices.Clone(q.open), i, i+1)
	}
	return q
}

func newCache() *cache { return &cache{vms: map[fleet.VMID]cachedVM{}} }

func (c *cache) get(id fleet.VMID) (cachedVM, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.vms[id]
	return v, ok
}

// put takes over what a transaction has read and committed.
func (c *cache) put(entries map[fleet.VMID]*vmEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range entries {
		if !e.known && !e.dirty {
			continue
		}
		if old, ok := c.vms[id]; ok && !old.vm.Connected {
			c.gone--
		}
		if !e.now.Connected {
			c.gone++
		}
		c.vms[id] = cachedVM{e.now, e.row, e.queue}
	}
	c.forgetGone(maxGone)
}

// forget empties the cache but for the VMs that are connected: rows of those are
// never purged.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetGone(0)
}

// forgetGone leaves no more than so many that are not connected. None of those
// is ahead of its row.
func (c *cache) forgetGone(most int) {
	for id, v := range c.vms {
		if c.gone <= most {
			return
		}
		if !v.vm.Connected {
			delete(c.vms, id)
			c.gone--
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

// behind returns the VMs whose rows lack something and were written before then.
func (c *cache) behind(then time.Time) []fleet.VMID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var ids []fleet.VMID
	for id, v := range c.vms {
		if v.row.ahead && v.row.writtenAt.Before(then) {
			ids = append(ids, id)
		}
	}
	return ids
}

// complete adds what the row that v was read from lacks.
func (c *cache) complete(v fleet.VM) fleet.VM {
	if newer, ok := c.get(v.ID); ok && newer.vm.LastSeenAt.After(v.LastSeenAt) {
		return v.WithLoad(newer.vm)
	}
	return v
}
