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

// unstoppable is the context of a group: once started, it succeeds or fails as a whole,
// whether or not its callers still wait.
var unstoppable = context.Background()

// maxTries is how often a group that conflicts with other writers is attempted.
const maxTries = 10

// runGroup commits operations and answers their callers. Operations that must wait until
// the others are committed follow in groups of their own.
func (e *Engine) runGroup(ops []*op) {
	for len(ops) > 0 {
		g := &group{e: e, reload: map[fleet.CommandID]bool{}, staleTokens: map[string]bool{}}
		err := g.commit(ops)
		e.cache.stopTracking()
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

// maxPooled is the maximum size in bytes of a block that is reused.
const maxPooled = 4 << 20

// release makes the memory of a finished group available for reuse.
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

// group is a set of operations that are committed together.
type group struct {
	e       *Engine
	entries map[fleet.VMID]*entry
	order   []*entry // in order of the first change, so that commits are deterministic
	// commands are the changed commands in their new state, in order of the first change;
	// named are those that were loaded by id.
	commands     []fleet.Command
	commandIndex map[fleet.CommandID]int // in commands
	named        map[fleet.CommandID]fleet.Command
	damaged      map[fleet.CommandID]error

	changes    []fleet.Change   // in order; the changes of VMs follow
	events     []store.EventRow // of the changes, in their order
	ready      []readyVM
	notices    []fleet.Notice
	heartbeats *block
	tally      tally
	marks      map[string]int64
	// tokens are the tokens to store, by id, and removedTokens those to remove.
	tokens        map[string]store.TokenRow
	removedTokens []string
	recordings    []recording // in order
	shifted       *clockShift // what it has shifted with the clock; nil if that has not stepped
	deferred      []*op
	// reload are commands that were expected to be new but exist, and staleTokens the tokens
	// that have changed since they were read.
	reload      map[fleet.CommandID]bool
	staleTokens map[string]bool
}

type readyVM struct {
	vm    fleet.VMID
	ready fleet.Ready
}

// commit runs the operations and makes their effects durable. An error is the driver's;
// after it the outcome is in doubt.
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
			g.recordShifted(err)
			if err == nil {
				g.finish(ops)
			} else {
				g.invalidateCache()
			}
			return err
		}
		g.reloadConflicts(conflict)
	}
	return errors.New("every attempt conflicted with other writers")
}

func (g *group) reset(vms int) {
	g.e.cache.trackInvalidated()
	*g = group{
		e: g.e, reload: g.reload, staleTokens: g.staleTokens, entries: make(map[fleet.VMID]*entry, vms),
		commandIndex: map[fleet.CommandID]int{}, named: map[fleet.CommandID]fleet.Command{}, damaged: map[fleet.CommandID]error{},
	}
}

// invalidateCache invalidates the cache after a commit that is in doubt, and makes sessions
// look for commands again.
func (g *group) invalidateCache() {
	for id := range g.entries {
		g.e.cache.invalidate(id)
		g.e.ready.each(func(fn func(fleet.VMID, fleet.Ready)) { fn(id, fleet.Ready{}) })
	}
}

// reloadConflicts makes the conflicting rows be loaded again.
func (g *group) reloadConflicts(c *store.ConflictError) {
	for _, id := range c.VMs {
		g.e.cache.invalidate(fleet.VMID(id))
	}
	for _, id := range c.Tokens {
		g.staleTokens[id] = true
	}
	for _, id := range c.Commands {
		g.reload[fleet.CommandID(id)] = true
		if i, ok := g.commandIndex[fleet.CommandID(id)]; ok {
			g.e.cache.invalidate(g.commands[i].VM)
		}
	}
}

// run runs an operation, or defers it if more commands of one of its VMs must be loaded
// first.
func (g *group) run(o *op) {
	o.err = nil
	for _, vm := range o.vms {
		if en := g.entries[vm]; !en.canReduce() {
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
	in, now = g.e.shiftInput(in, now)
	_, named := in.Subject()
	if err := g.damaged[named]; err != nil {
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
	if out.Event != nil { // an event that cannot be written must fail alone
		row, err := encodeEvent(*out.Event)
		if err != nil {
			return out, err
		}
		g.events = append(g.events, row)
	}
	g.tally.add(&s, &out)
	g.apply(en, out, now)
	return out, nil
}

// command returns a command that an input names, in its state within this group, or the
// zero Command.
func (g *group) command(id fleet.CommandID) fleet.Command {
	if i, ok := g.commandIndex[id]; ok {
		return g.commands[i]
	}
	return g.named[id]
}

// apply applies an outcome.
func (g *group) apply(en *entry, out fleet.Outcome, now time.Time) {
	for _, c := range out.Commands {
		i, ok := g.commandIndex[c.ID]
		if !ok {
			i = len(g.commands)
			g.commands = append(g.commands, c)
			g.commandIndex[c.ID] = i
		}
		g.commands[i] = c
	}
	g.changes = append(g.changes, out.Changes...)
	g.notices = append(g.notices, out.Notices...)
	en.apply(g, out, now)
	if out.VMChecked && len(out.Commands) > 0 {
		en.markDirty(g, now) // so that the commit conflicts with another writer's change of the VM
	}
	switch {
	case out.Ready.Command != "":
		g.ready = append(g.ready, readyVM{en.id, out.Ready})
	case len(out.Commands) > 0 && en.vm.Connected && !en.canReduce(): // there may be one that is not in memory
		g.ready = append(g.ready, readyVM{en.id, fleet.Ready{Prepare: true}})
	}
}

// finish completes the answers of the operations and announces their consequences.
func (g *group) finish(ops []*op) {
	g.e.metrics.count(&g.tally)
	g.finishTokens()
	g.finishAudit()
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

// numbered returns a command with the numbers that the commit assigned.
func (g *group) numbered(c fleet.Command) fleet.Command {
	if i, ok := g.commandIndex[c.ID]; ok {
		c.Seq, c.Version = g.commands[i].Seq, g.commands[i].Version
	}
	return c
}
