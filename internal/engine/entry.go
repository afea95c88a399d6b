package engine

import (
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// entry is a VM in a group: as it was committed, and in its new state.
type entry struct {
	id       fleet.VMID
	cached   cachedVM // as committed
	vm       fleet.VM // its new state
	commands []fleet.Command
	more     moreSet
	dirty    bool
	recorded bool      // all changes are in heartbeats or acks as well
	at       time.Time // of the latest change
	loading  bool      // its rows are still to be loaded
}

// moreSet contains the queues that may have more commands than are in memory.
type moreSet uint8

func bit(q fleet.Queue) moreSet { return 1 << slices.Index(fleet.Queues, q) }

func (m moreSet) has(q fleet.Queue) bool { return m&bit(q) != 0 }

// begin starts with the cached VM.
func (en *entry) begin(h cachedVM) {
	en.cached, en.vm, en.commands, en.more = h, h.vm, h.commands, h.more
}

// canReduce reports whether the rules can be applied: of each queue the first command is in
// memory, or there is none.
func (en *entry) canReduce() bool {
	if en.more == 0 {
		return true
	}
	for _, q := range fleet.Queues {
		if en.more.has(q) && !slices.ContainsFunc(en.commands, func(c fleet.Command) bool { return c.Queue() == q }) {
			return false
		}
	}
	return true
}

// apply applies the outcome of an input.
func (en *entry) apply(g *group, out fleet.Outcome, now time.Time) {
	if out.State.VM != en.vm {
		recorded := out.VMRecorded && (en.recorded || !en.dirty)
		en.markDirty(g, now)
		en.vm, en.recorded = out.State.VM, recorded
	}
	if len(out.Commands) > 0 {
		en.commands = out.State.Commands
		en.trim()
	}
}

// markDirty requests that the VM's row is written.
func (en *entry) markDirty(g *group, at time.Time) {
	if !en.dirty {
		g.order = append(g.order, en)
	}
	en.dirty, en.recorded, en.at = true, false, at
}

// trim drops the commands of each queue that the rules do not need. A new one is queued
// after those that are not in memory, so it is dropped too.
func (en *entry) trim() {
	count := make(map[fleet.Queue]int, len(fleet.Queues))
	kept := en.commands[:0:0]
	for _, c := range en.commands {
		q := c.Queue()
		if count[q] == fleet.QueueDepth || c.Version == 0 && en.more.has(q) {
			en.more |= bit(q)
			continue
		}
		count[q]++
		kept = append(kept, c)
	}
	if len(kept) < len(en.commands) {
		en.commands = kept
	}
}

// differs reports whether the VM gets an entry in the change log.
func (en *entry) differs() bool { return en.cached.version == 0 || en.vm.Differs(en.cached.vm) }

// canWriteLater reports whether the VM's row can be written later: it is recent, and
// heartbeats and acks contain what it lacks.
func (en *entry) canWriteLater() bool {
	age := en.at.Sub(en.cached.writtenAt) // negative after the clock was set back
	return en.recorded && !en.differs() && en.vm.DueAt.Equal(en.cached.vm.DueAt) && en.vm.Connected &&
		age >= 0 && age < rowEvery
}

// maxCachedParams is the maximum size in bytes of the parameters of a command in memory.
const maxCachedParams = 1 << 10

// everything contains every queue.
const everything = ^moreSet(0)

// toCache returns what is cached once the changes are committed.
func (en *entry) toCache() cachedVM {
	h := en.cached
	h.vm, h.commands, h.more = en.vm, en.commands, en.more
	if slices.ContainsFunc(h.commands, func(c fleet.Command) bool { return c.Params.Size() > maxCachedParams }) {
		h.commands, h.more = nil, everything
	}
	return h
}

// cachedVM is a cached VM, as it was committed. Its row may lack what heartbeats and acks
// contain as well.
type cachedVM struct {
	vm       fleet.VM
	commands []fleet.Command
	more     moreSet
	version  store.Version
	// writtenAt is when its row was written; zero if unknown. dirty is whether the VM is
	// newer than its row.
	writtenAt time.Time
	dirty     bool
}
