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
	held     held     // as committed
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
func (en *entry) begin(h held) {
	en.held, en.vm, en.commands, en.more = h, h.vm, h.commands, h.more
}

// complete reports whether the rules can be applied: of each queue the first command is in
// memory, or there is none.
func (en *entry) complete() bool {
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
		en.touch(g, now)
		en.vm, en.recorded = out.State.VM, recorded
	}
	if len(out.Commands) > 0 {
		en.commands = out.State.Commands
		en.bound()
	}
}

// touch requests that the VM's row is written.
func (en *entry) touch(g *group, at time.Time) {
	if !en.dirty {
		g.order = append(g.order, en)
	}
	en.dirty, en.recorded, en.at = true, false, at
}

// bound drops the commands of each queue that the rules do not need. A new one is queued
// after those that are not in memory, so it is dropped too.
func (en *entry) bound() {
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
func (en *entry) differs() bool { return en.held.version == 0 || en.vm.Differs(en.held.vm) }

// lags reports whether the VM's row can be written later.
func (en *entry) lags() bool {
	age := en.at.Sub(en.held.writtenAt) // negative after the clock was set back
	return en.recorded && !en.differs() && en.vm.DueAt.Equal(en.held.vm.DueAt) && en.vm.Connected &&
		age >= 0 && age < rowEvery
}

// maxHeldParams is the maximum size in bytes of the parameters of a command in memory.
const maxHeldParams = 1 << 10

// everything contains every queue.
const everything = ^moreSet(0)

// afterwards returns what is cached once the changes are committed.
func (en *entry) afterwards() held {
	h := en.held
	h.vm, h.commands, h.more = en.vm, en.commands, en.more
	if slices.ContainsFunc(h.commands, func(c fleet.Command) bool { return c.Params.Size() > maxHeldParams }) {
		h.commands, h.more = nil, everything
	}
	return h
}

// held is a cached VM, as it was committed. Its row may lack what heartbeats and acks
// contain as well.
type held struct {
	vm       fleet.VM
	commands []fleet.Command
	more     moreSet
	version  store.Version
	// writtenAt is when its row was written; zero if unknown. ahead is whether the VM is
	// newer than the row.
	writtenAt time.Time
	ahead     bool
}
