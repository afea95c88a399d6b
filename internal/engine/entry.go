package engine

import (
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// entry is a VM in a group: as it was committed, and as it is now.
type entry struct {
	id       fleet.VMID
	held     held     // as committed
	vm       fleet.VM // as it is now
	commands []fleet.Command
	more     moreSet
	dirty    bool
	recorded bool      // all that differs is in heartbeats or acks as well
	at       time.Time // of the latest change
	loading  bool      // what the driver has of it is taken over
}

// moreSet has the queues of which there may be more commands than are held.
type moreSet uint8

func bit(q fleet.Queue) moreSet { return 1 << slices.Index(fleet.Queues, q) }

func (m moreSet) has(q fleet.Queue) bool { return m&bit(q) != 0 }

// begin begins with the VM as it is held in memory.
func (en *entry) begin(h held) {
	en.held, en.vm, en.commands, en.more = h, h.vm, h.commands, h.more
}

// complete reports whether the rules can be applied: of each queue the first
// command is there, or there is none.
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

// take takes over the outcome of an input.
func (en *entry) take(g *group, out fleet.Outcome, now time.Time) {
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

// touch has the VM's row written.
func (en *entry) touch(g *group, at time.Time) {
	if !en.dirty {
		g.order = append(g.order, en)
	}
	en.dirty, en.recorded, en.at = true, false, at
}

// bound drops the commands of each queue that the rules do not need. A new one comes
// after those that are not held, and so is not held either.
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

// differs reports whether the VM gets a change in the log.
func (en *entry) differs() bool { return en.held.version == 0 || en.vm.Differs(en.held.vm) }

// lags reports whether the VM's row can be written later.
func (en *entry) lags() bool {
	age := en.at.Sub(en.held.writtenAt) // negative after the clock was set back
	return en.recorded && !en.differs() && en.vm.DueAt.Equal(en.held.vm.DueAt) && en.vm.Connected &&
		age >= 0 && age < rowEvery
}

// maxHeldParams is how many bytes the parameters of a command that is held in memory
// may have.
const maxHeldParams = 1 << 10

// everything is every queue.
const everything = ^moreSet(0)

// afterwards is what is held once the changes are committed.
func (en *entry) afterwards() held {
	h := en.held
	h.vm, h.commands, h.more = en.vm, en.commands, en.more
	if slices.ContainsFunc(h.commands, func(c fleet.Command) bool { return c.Params.Size() > maxHeldParams }) {
		h.commands, h.more = nil, everything
	}
	return h
}

// held is a VM as it is held in memory: as it was committed. Its row may lack what
// heartbeats and acks say as well.
type held struct {
	vm       fleet.VM
	commands []fleet.Command
	more     moreSet
	version  store.Version
	// writtenAt is when its row was written; zero when that is not known. ahead is
	// whether the row lacks something.
	writtenAt time.Time
	ahead     bool
}
