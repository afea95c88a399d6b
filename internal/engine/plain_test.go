package engine_test

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// plain is an engine as simple as possible: it applies the rules to all records, one input
// at a time, and keeps whole records in maps.
type plain struct {
	rules    fleet.Rules
	vms      map[fleet.VMID]fleet.VM
	commands map[fleet.CommandID]fleet.Command
	order    []fleet.CommandID // the order of acceptance
	events   []fleet.Event
	beats    map[fleet.VMID][]fleet.Heartbeat
	changes  map[fleet.VMID][]fleet.Change

	before  map[fleet.VMID]fleet.VM // the commit in progress
	changed []fleet.VMID            // since then, in order
	at      map[fleet.VMID]time.Time
}

func newPlain(r fleet.Rules) *plain {
	return &plain{
		rules: r, vms: map[fleet.VMID]fleet.VM{}, commands: map[fleet.CommandID]fleet.Command{},
		beats: map[fleet.VMID][]fleet.Heartbeat{}, changes: map[fleet.VMID][]fleet.Change{},
	}
}

// commit runs one commit: a VM that differs afterwards is one change.
func (p *plain) commit(fn func()) {
	p.before, p.changed, p.at = map[fleet.VMID]fleet.VM{}, nil, map[fleet.VMID]time.Time{}
	earlier := map[fleet.VMID]int{}
	for id, changes := range p.changes {
		earlier[id] = len(changes)
	}
	fn()
	for _, id := range p.changed {
		v, was := p.vms[id], p.before[id]
		if was.ID == "" || v.Differs(was) {
			c := fleet.Change{At: p.at[id], Subject: id, VM: &v}
			if was.Pool != v.Pool {
				c.Left = was.Pool
			}
			p.changes[id] = append(p.changes[id], c)
		}
	}
	for id, changes := range p.changes {
		for i := earlier[id]; i < len(changes); i++ {
			changes[i].Pool = p.vms[id].Pool
		}
	}
}

func (p *plain) state(vm fleet.VMID, named fleet.CommandID) fleet.State {
	s := fleet.State{VM: p.vms[vm]}
	for _, id := range p.order {
		if c := p.commands[id]; c.VM == vm && !c.State.Terminal() {
			s.Commands = append(s.Commands, c)
		}
	}
	if _, ok := s.Command(named); !ok {
		s.Named = p.commands[named]
	}
	return s
}

func (p *plain) reduce(in fleet.Input, now time.Time) (fleet.Outcome, error) {
	vm, named := in.Subject()
	s := p.state(vm, named)
	out, err := p.rules.Reduce(s, in, now)
	if err != nil {
		return out, err
	}
	for _, c := range out.Commands {
		if _, ok := p.commands[c.ID]; !ok {
			p.order = append(p.order, c.ID)
		}
		p.commands[c.ID] = c
	}
	for _, c := range out.Changes {
		if c.Command != nil {
			outline := c.Command.Outline()
			c.Command = &outline
		}
		p.changes[c.Subject] = append(p.changes[c.Subject], c)
	}
	if out.Event != nil {
		p.events = append(p.events, *out.Event)
	}
	if v := out.State.VM; v != s.VM {
		if _, ok := p.before[vm]; !ok {
			p.before[vm] = s.VM
			p.changed = append(p.changed, vm)
		}
		p.vms[vm], p.at[vm] = v, now
	}
	return out, nil
}

func (p *plain) apply(in fleet.Input, now time.Time) (out fleet.Outcome, err error) {
	p.commit(func() { out, err = p.reduce(in, now) })
	return out, err
}

func (p *plain) record(hs []fleet.Heartbeat) {
	hs = slices.Clone(hs)
	slices.SortStableFunc(hs, func(a, b fleet.Heartbeat) int { return strings.Compare(string(a.VM), string(b.VM)) })
	p.commit(func() {
		for _, h := range hs {
			if out, _ := p.reduce(fleet.HeartbeatReceived{Heartbeat: &h}, h.ReceivedAt); !out.Stale {
				p.beats[h.VM] = append(p.beats[h.VM], h)
			}
		}
	})
}

// tick ticks everything that is due, and returns how much that was.
func (p *plain) tick(now time.Time, live func(fleet.VMID) fleet.Live) int {
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(now) }
	var vms []fleet.VM
	for _, v := range p.vms {
		if due(v.DueAt) {
			vms = append(vms, v)
		}
	}
	var commands []fleet.Command
	for _, c := range p.commands {
		if due(c.DueAt) {
			commands = append(commands, c)
		}
	}
	slices.SortFunc(vms, func(a, b fleet.VM) int { return a.DueAt.Compare(b.DueAt) })
	slices.SortFunc(commands, func(a, b fleet.Command) int { return a.DueAt.Compare(b.DueAt) })
	p.commit(func() {
		for _, v := range vms {
			_, _ = p.reduce(fleet.Tick{VM: v.ID, Live: live(v.ID)}, now)
		}
		for _, c := range commands {
			_, _ = p.reduce(fleet.Tick{VM: c.VM, Command: c.ID, Live: live(c.VM)}, now)
		}
	})
	return len(vms) + len(commands)
}

// restart ends the sessions of the previous run.
func (p *plain) restart(now time.Time) {
	p.commit(func() {
		for _, v := range p.sorted() {
			_, _ = p.reduce(fleet.ControllerRestarted{VM: v.ID}, now)
		}
	})
}

// sorted returns the VMs in order of their ids.
func (p *plain) sorted() []fleet.VM {
	var vms []fleet.VM
	for _, v := range p.vms {
		vms = append(vms, v)
	}
	slices.SortFunc(vms, func(a, b fleet.VM) int { return cmp.Compare(a.ID, b.ID) })
	return vms
}
