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

// VMs lists VMs in the order of their ids.
func (e *Engine) VMs(ctx context.Context, q store.VMQuery, limit int) ([]fleet.VM, error) {
	rows, err := e.Driver.VMs(ctx, q, limit)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return decoded(rows, func(row store.VMRow) (fleet.VM, error) {
		v, err := decodeVM(row)
		return e.cache.completed(v), err
	})
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

// Commands lists commands, the latest accepted first.
func (e *Engine) Commands(ctx context.Context, q store.CommandQuery, limit int) ([]fleet.Command, error) {
	rows, err := e.Driver.Commands(ctx, q, limit)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return decoded(rows, decodeCommand)
}

// Events lists events, the latest received first, or the earliest with After.
func (e *Engine) Events(ctx context.Context, q store.EventQuery, limit int) ([]fleet.Event, error) {
	rows, err := e.Driver.Events(ctx, q, limit)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return decoded(rows, decodeEvent)
}

// journaled is the mark of the last event that is in the journal.
const journaled = "journaled_event"

// UnjournaledEvents returns events that are not yet marked, oldest first.
func (e *Engine) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	after, err := e.Driver.Mark(ctx, journaled)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return e.Events(ctx, store.EventQuery{After: &after}, limit)
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
