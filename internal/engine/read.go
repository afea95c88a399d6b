package engine

import (
	"context"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// State returns what the next step of a VM depends on, as last committed. Its VM is the
// zero VM if it was never seen.
func (e *Engine) State(ctx context.Context, vm fleet.VMID) (fleet.State, error) {
	g := &group{e: e, entries: map[fleet.VMID]*entry{}}
	if err := g.load([]*op{{vms: []fleet.VMID{vm}}}); err != nil {
		return fleet.State{}, unavailable(ctx, err)
	}
	en := g.entries[vm]
	return fleet.State{VM: en.vm, Commands: en.commands}, en.err
}

// VM returns one VM or fleet.ErrNotFound.
func (e *Engine) VM(ctx context.Context, id fleet.VMID) (fleet.VM, error) {
	if h, ok := e.cache.get(id); ok {
		return h.vm, nil
	}
	rows, err := e.Driver.Load(ctx, store.Keys{VMs: []string{string(id)}})
	switch {
	case err != nil:
		return fleet.VM{}, unavailable(ctx, err)
	case len(rows.VMs) == 0:
		return fleet.VM{}, fleet.ErrNotFound
	}
	v, err := decodeVM(rows.VMs[0])
	return e.cache.completed(v), err
}

// VMs lists VMs in the order of their ids, within the bounds of store.Queries, and whether
// there are more.
func (e *Engine) VMs(ctx context.Context, q store.VMQuery, limit int) (vms []fleet.VM, more bool, err error) {
	rows, more, err := e.Driver.VMs(ctx, q, limit)
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	vms, err = decoded(rows, func(row store.VMRow) (fleet.VM, error) {
		v, err := decodeVM(row)
		return e.cache.completed(v), err
	})
	return vms, more, err
}

// Command returns one command or fleet.ErrNotFound.
func (e *Engine) Command(ctx context.Context, id fleet.CommandID) (fleet.Command, error) {
	rows, err := e.Driver.Load(ctx, store.Keys{Commands: []string{string(id)}})
	switch {
	case err != nil:
		return fleet.Command{}, unavailable(ctx, err)
	case len(rows.Commands) == 0:
		return fleet.Command{}, fleet.ErrNotFound
	}
	return decodeCommand(rows.Commands[0])
}

// Commands lists commands, the latest accepted first, as VMs does.
func (e *Engine) Commands(ctx context.Context, q store.CommandQuery, limit int) (cs []fleet.Command, more bool, err error) {
	rows, more, err := e.Driver.Commands(ctx, q, limit)
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	cs, err = decoded(rows, decodeCommand)
	return cs, more, err
}

// Events lists events, the latest received first, or the earliest with After, as VMs
// does.
func (e *Engine) Events(ctx context.Context, q store.EventQuery, limit int) (events []fleet.Event, more bool, err error) {
	rows, more, err := e.Driver.Events(ctx, q, limit)
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	events, err = decoded(rows, decodeEvent)
	return events, more, err
}

// journaled is the mark of the last event that is in the journal.
const journaled = "journaled_event"

// UnjournaledEvents returns events that are not yet marked, oldest first: none only when
// there are none.
func (e *Engine) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	after, err := e.Driver.Mark(ctx, journaled)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	events, _, err := e.Events(ctx, store.EventQuery{After: &after}, limit)
	return events, err
}

// MarkJournaled marks the events up to seq as written to the journal.
func (e *Engine) MarkJournaled(ctx context.Context, seq int64) error {
	return e.do(ctx, &op{run: func(g *group) error {
		g.mark(journaled, seq)
		return nil
	}})
}

// mark stores a number under a name with the group.
func (g *group) mark(name string, n int64) {
	if g.marks == nil {
		g.marks = map[string]int64{}
	}
	g.marks[name] = n
}
