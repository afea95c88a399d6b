package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/store"
)

// unstoppable is the context of what a group does: once begun, it succeeds or fails
// as a whole, whether or not its callers still wait.
var unstoppable = context.Background()

// maxTries is how often a group that conflicts with other writers is tried.
const maxTries = 10

// runGroup commits operations and answers their callers. Those that have to wait until
// the rest is committed follow in groups of their own.
func (e *Engine) runGroup(ops []*op) {
	for len(ops) > 0 {
		g := &group{e: e, reload: map[fleet.CommandID]bool{}}
		err := g.commit(ops)
		e.cache.unwatch()
		for _, o := range ops {
			if err != nil {
				o.err = unavailable(unstoppable, err)
			}
			if err != nil || !slices.Contains(g.deferred, o) {
				close(o.done)
			}
		}
		e.release(g)
		if err != nil {
			return
		}
		ops = g.deferred
	}
}

// maxPooled is how large the block of a group may be, in bytes, that is used again.
const maxPooled = 4 << 20

// release has the memory of a group that is over used again.
func (e *Engine) release(g *group) {
	for _, en := range g.entries {
		*en = entry{}
		e.entries.Put(en)
	}
	if b := g.heartbeats; b != nil && cap(b.text)+cap(b.doc) <= maxPooled {
		clear(b.vms)
		*b = block{text: b.text[:0], doc: b.doc[:0], vms: b.vms[:0]}
		e.blocks.Put(b)
	}
}

// group is what is committed at once.
type group struct {
	e       *Engine
	entries map[fleet.VMID]*entry
	order   []*entry // of the first change, so that a commit is repeatable
	// commands are those that were changed, as they are now, in the order of the first
	// change, and named are those that were loaded by their ids.
	commands []fleet.Command
	placed   map[fleet.CommandID]int // in commands
	named    map[fleet.CommandID]fleet.Command
	broken   map[fleet.CommandID]error

	changes    []fleet.Change   // in order; those of VMs follow
	events     []store.EventRow // of the changes, in their order
	ready      []readyVM
	notices    []fleet.Notice
	heartbeats *block
	marks      map[string]int64
	moved      *move // what it has moved with the clock; nil when that has not stepped
	deferred   []*op
	// reload are commands that turned out to exist.
	reload map[fleet.CommandID]bool
}

type readyVM struct {
	vm    fleet.VMID
	ready fleet.Ready
}

// commit runs the operations and makes what they did durable. After an error, which
// is the driver's, it is in doubt whether that was made.
func (g *group) commit(ops []*op) error {
	vms := 0
	for _, o := range ops {
		vms += len(o.vms)
	}
	for range maxTries {
		g.reset(vms)
		if err := g.load(ops); err != nil {
			return err
		}
		if err := g.followClock(ops); err != nil {
			return err
		}
		for _, o := range ops {
			g.run(o)
		}
		err := g.write()
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) {
			g.movedOn(err)
			if err == nil {
				g.committed(ops)
			} else {
				g.doubted()
			}
			return err
		}
		g.conflicted(conflict)
	}
	return errors.New("other writers were always faster")
}

func (g *group) reset(vms int) {
	g.e.cache.watch()
	*g = group{
		e: g.e, reload: g.reload, entries: make(map[fleet.VMID]*entry, vms),
		placed: map[fleet.CommandID]int{}, named: map[fleet.CommandID]fleet.Command{}, broken: map[fleet.CommandID]error{},
	}
}

// doubted has everything loaded again after a commit that is in doubt, and sessions
// look at what is there.
func (g *group) doubted() {
	for id := range g.entries {
		g.e.cache.outdate(id)
		g.e.ready.each(func(fn func(fleet.VMID, fleet.Ready)) { fn(id, fleet.Ready{}) })
	}
}

// conflicted has the rows that conflicted loaded again.
func (g *group) conflicted(c *store.ConflictError) {
	for _, id := range c.VMs {
		g.e.cache.outdate(fleet.VMID(id))
	}
	for _, id := range c.Commands {
		g.reload[fleet.CommandID(id)] = true
		if i, ok := g.placed[fleet.CommandID(id)]; ok {
			g.e.cache.outdate(g.commands[i].VM)
		}
	}
}

// run runs an operation, unless the state of one of its VMs is no longer complete.
func (g *group) run(o *op) {
	o.err = nil
	for _, vm := range o.vms {
		if en := g.entries[vm]; !en.complete() {
			g.deferred = append(g.deferred, o)
			return
		}
	}
	o.err = g.attempt(o)
}

func (g *group) attempt(o *op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.e.limited("panic").Error("an input cannot be applied", logkey.Panic, p, logkey.Stack, string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return o.run(g)
}

// reduce applies an input to the state of its VM.
func (g *group) reduce(vm fleet.VMID, in fleet.Input, now time.Time) (fleet.Outcome, error) {
	en := g.entries[vm]
	in, now = g.e.afterJump(in, now)
	_, named := in.Subject()
	if err := g.broken[named]; err != nil {
		return fleet.Outcome{}, err
	}
	s := fleet.State{VM: en.vm, Commands: en.commands}
	if _, ok := s.Command(named); !ok && named != "" {
		s.Named = g.command(named)
	}
	out, err := g.e.Rules.Reduce(s, in, now)
	if err != nil {
		return out, err
	}
	if out.Event != nil { // one that cannot be written is its sender's fault alone
		row, err := encodeEvent(*out.Event)
		if err != nil {
			return out, err
		}
		g.events = append(g.events, row)
	}
	g.take(en, out, now)
	return out, nil
}

// command returns a command that an input names, as it is in this group, or the zero
// Command.
func (g *group) command(id fleet.CommandID) fleet.Command {
	if i, ok := g.placed[id]; ok {
		return g.commands[i]
	}
	return g.named[id]
}

// take takes over an outcome.
func (g *group) take(en *entry, out fleet.Outcome, now time.Time) {
	for _, c := range out.Commands {
		i, ok := g.placed[c.ID]
		if !ok {
			i = len(g.commands)
			g.commands = append(g.commands, c)
			g.placed[c.ID] = i
		}
		g.commands[i] = c
	}
	g.changes = append(g.changes, out.Changes...)
	g.notices = append(g.notices, out.Notices...)
	en.take(g, out, now)
	switch {
	case out.Ready.Command != "":
		g.ready = append(g.ready, readyVM{en.id, out.Ready})
	case len(out.Commands) > 0 && en.vm.Connected && !en.complete(): // there may be one that is not held
		g.ready = append(g.ready, readyVM{en.id, fleet.Ready{Prepare: true}})
	}
}

// committed completes the answers of the operations and announces what they led to.
func (g *group) committed(ops []*op) {
	for _, o := range ops {
		if o.committed != nil && !slices.Contains(g.deferred, o) {
			o.committed(g)
		}
	}
	for _, r := range g.ready {
		g.e.ready.each(func(fn func(fleet.VMID, fleet.Ready)) { fn(r.vm, r.ready) })
	}
	for _, n := range g.notices {
		g.e.notices.each(func(fn func(fleet.Notice)) { fn(n) })
	}
}

// numbered returns a command with the numbers that the commit gave it.
func (g *group) numbered(c fleet.Command) fleet.Command {
	if i, ok := g.placed[c.ID]; ok {
		c.Seq, c.Version = g.commands[i].Seq, g.commands[i].Version
	}
	return c
}
