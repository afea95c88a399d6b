package sqlstore

import (
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxCached is how many VMs the cache holds; those ahead of their rows count on
// top.
const maxCached = 20_000

// rowEvery is how often the row of a VM that sends nothing but heartbeats is
// written. What the row lacks until then is in the heartbeats, which are
// durable, and ResetSessions finds it there after a crash.
const rowEvery = time.Minute

// cache has VMs as they were committed. The writer alone puts them there, so
// none is older than its row; some are ahead of it, but only in what a heartbeat
// changes about every VM.
type cache struct {
	mu    sync.RWMutex
	vms   map[fleet.VMID]cachedVM
	ahead int // how many of them are
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
	maxHeld   = 8 << 10
)

func queueOf(open []fleet.Command) queue {
	if len(open) > maxQueued || slices.ContainsFunc(open, isLarge) {
		return queue{}
	}
	return queue{known: true, open: open}
}

func isLarge(c fleet.Command) bool {
	size := 0
	for name, value := range c.Params.Strings {
		size += len(name) + len(value)
	}
	for _, value := range c.Params.List {
		size += len(value)
	}
	return size > maxHeld
}

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
	q.open = slices.Clone(q.open)
	if c.State.Terminal() {
		q.open = slices.Delete(q.open, i, i+1)
	} else {
		q.open[i] = c
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
		if c.vms[id].row.ahead {
			c.ahead--
		}
		if e.row.ahead {
			c.ahead++
		}
		c.vms[id] = cachedVM{e.now, e.row, e.queue}
	}
	for id, v := range c.vms {
		if len(c.vms)-c.ahead <= maxCached {
			return
		}
		if !v.row.ahead {
			delete(c.vms, id)
		}
	}
}

// forget empties the cache but for the VMs that are ahead of their rows. Rows
// of those are never purged: their sessions are live.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, v := range c.vms {
		if !v.row.ahead {
			delete(c.vms, id)
		}
	}
}

// allAhead returns the VMs that are ahead of their rows.
func (c *cache) allAhead() []fleet.VM {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var vms []fleet.VM
	for _, v := range c.vms {
		if v.row.ahead {
			vms = append(vms, v.vm)
		}
	}
	return vms
}

// complete adds what the row that v was read from lacks.
func (c *cache) complete(v fleet.VM) fleet.VM {
	if newer, ok := c.get(v.ID); ok && newer.vm.LastSeenAt.After(v.LastSeenAt) {
		return v.WithLoad(newer.vm)
	}
	return v
}
