package sqlstore

import (
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// reduced is a fleet in memory that moves on by fleet.Rules.Reduce alone.
type reduced struct {
	rules    fleet.Rules
	vms      map[fleet.VMID]fleet.VM
	commands map[fleet.CommandID]fleet.Command
	order    []fleet.CommandID // of acceptance
	changes  map[fleet.VMID][]fleet.Change

	// Of the operation under way.
	before  map[fleet.VMID]fleet.VM
	at      map[fleet.VMID]time.Time
	touched []fleet.CommandID
}

func newReduced() *reduced {
	return &reduced{
		vms: map[fleet.VMID]fleet.VM{}, commands: map[fleet.CommandID]fleet.Command{},
		changes: map[fleet.VMID][]fleet.Change{},
		before:  map[fleet.VMID]fleet.VM{}, at: map[fleet.VMID]time.Time{},
	}
}

// open returns the open commands of a VM, oldest first.
func (r *reduced) open(vm fleet.VMID) (open []fleet.Command) {
	for _, id := range r.order {
		if c := r.commands[id]; c.VM == vm && !c.State.Terminal() {
			open = append(open, c)
		}
	}
	return open
}

// state is as much of the VM as an engine would load for an input.
func (r *reduced) state(vm fleet.VMID, named fleet.CommandID) fleet.State {
	s := fleet.State{VM: r.vms[vm]}
	taken := map[fleet.Queue]int{}
	for _, c := range r.open(vm) {
		taken[c.Queue()]++
		if taken[c.Queue()] <= fleet.QueueDepth {
			s.Commands = append(s.Commands, c)
		}
	}
	if !slices.ContainsFunc(s.Commands, func(c fleet.Command) bool { return c.ID == named }) {
		s.Named = r.commands[named]
	}
	return s
}

// reduce applies an input as a part of the operation under way.
func (r *reduced) reduce(in fleet.Input, now time.Time) (fleet.Outcome, error) {
	vm, named := in.Subject()
	out, err := r.rules.Reduce(r.state(vm, named), in, now)
	if err != nil {
		return out, err
	}
	if _, ok := r.before[vm]; !ok {
		r.before[vm] = r.vms[vm]
	}
	if !out.Stale {
		r.at[vm] = now
	}
	if out.State.Known() {
		r.vms[vm] = out.State.VM
	}
	for _, c := range out.Commands {
		if _, ok := r.commands[c.ID]; !ok {
			r.order = append(r.order, c.ID)
		}
		r.commands[c.ID] = c
		r.touched = append(r.touched, c.ID)
	}
	for _, c := range out.Changes {
		if c.Command != nil {
			outline := c.Command.Outline()
			c.Command = &outline
		}
		r.changes[vm] = append(r.changes[vm], c)
	}
	return out, nil
}

// commit ends the operation: the VMs have changed as they are now.
func (r *reduced) commit() {
	for vm, before := range r.before {
		if v := r.vms[vm]; v.Differs(before) {
			v.DueAt = time.Time{}
			r.changes[vm] = append(r.changes[vm], fleet.Change{At: r.at[vm], Subject: vm, VM: &v})
		}
	}
	clear(r.before)
	clear(r.at)
	r.touched = nil
}

// due returns the open commands whose time is up, the earliest first.
func (r *reduced) due(now time.Time) (due []fleet.Command) {
	for _, id := range r.order {
		if c := r.commands[id]; !c.State.Terminal() && !c.DueAt.After(now) {
			due = append(due, c)
		}
	}
	slices.SortStableFunc(due, func(a, b fleet.Command) int { return a.DueAt.Compare(b.DueAt) })
	return due
}
