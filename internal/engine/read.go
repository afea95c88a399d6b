package engine

import (
	"context"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// State returns the fleet.State of a VM as last committed. Its VM is the zero VM if it was
// never seen.
func (e *Engine) State(ctx context.Context, vm fleet.VMID) (fleet.State, error) {
	g := &group{e: e, entries: map[fleet.VMID]*entry{}}
	if err := g.load([]*op{{vms: []fleet.VMID{vm}}}); err != nil {
		return fleet.State{}, unavailable(ctx, err)
	}
	en := g.entries[vm]
	return fleet.State{VM: en.vm, Commands: en.commands}, nil
}

// VM returns one VM, fleet.ErrNotFound or fleet.ErrDamaged.
func (e *Engine) VM(ctx context.Context, id fleet.VMID) (fleet.VM, error) {
	if h, ok := e.cache.get(id); ok {
		return h.vm, nil
	}
	var vms []fleet.VM
	var aside map[string]int64
	err := e.undamaged(ctx, func() error {
		rows, err := e.Driver.Load(ctx, store.Keys{VMs: []string{string(id)}})
		if err != nil {
			return err
		}
		aside = rows.Aside.VMs
		vms, err = decoded(rows.VMs, placesOfVM, decodeVM)
		return err
	})
	switch {
	case err != nil:
		return fleet.VM{}, unavailable(ctx, err)
	case len(vms) > 0:
		return e.cache.completed(vms[0]), nil
	case len(aside) > 0:
		return fleet.VM{}, fleet.ErrDamaged
	default:
		return fleet.VM{}, fleet.ErrNotFound
	}
}

// VMs lists VMs in order of their ids, within the bounds of store.Queries, and whether
// there are more.
func (e *Engine) VMs(ctx context.Context, q store.VMQuery, limit int) (vms []fleet.VM, more bool, err error) {
	err = e.undamaged(ctx, func() (err error) {
		var rows []store.VMRow
		if rows, more, err = e.Driver.VMs(ctx, q, limit); err != nil {
			return err
		}
		vms, err = decoded(rows, placesOfVM, decodeVM)
		return err
	})
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	for i := range vms {
		vms[i] = e.cache.completed(vms[i])
	}
	return vms, more, nil
}

// Command returns one command, fleet.ErrNotFound or fleet.ErrDamaged.
func (e *Engine) Command(ctx context.Context, id fleet.CommandID) (fleet.Command, error) {
	var cs []fleet.Command
	var aside map[string]int64
	err := e.undamaged(ctx, func() error {
		rows, err := e.Driver.Load(ctx, store.Keys{Commands: []string{string(id)}})
		if err != nil {
			return err
		}
		aside = rows.Aside.Commands
		cs, err = decoded(rows.Commands, placesOfCommand, decodeCommand)
		return err
	})
	switch {
	case err != nil:
		return fleet.Command{}, unavailable(ctx, err)
	case len(cs) > 0:
		return cs[0], nil
	case len(aside) > 0:
		return fleet.Command{}, fleet.ErrDamaged
	default:
		return fleet.Command{}, fleet.ErrNotFound
	}
}

// Commands lists commands, latest accepted first, as VMs does.
func (e *Engine) Commands(ctx context.Context, q store.CommandQuery, limit int) (cs []fleet.Command, more bool, err error) {
	err = e.undamaged(ctx, func() (err error) {
		var rows []store.CommandRow
		if rows, more, err = e.Driver.Commands(ctx, q, limit); err != nil {
			return err
		}
		cs, err = decoded(rows, placesOfCommand, decodeCommand)
		return err
	})
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	return cs, more, nil
}

// Events lists events, latest received first, or earliest first with After, as VMs does.
func (e *Engine) Events(ctx context.Context, q store.EventQuery, limit int) (events []fleet.Event, more bool, err error) {
	err = e.undamaged(ctx, func() (err error) {
		var rows []store.EventRow
		if rows, more, err = e.Driver.Events(ctx, q, limit); err != nil {
			return err
		}
		events, err = decoded(rows, placesOfEvent, decodeEvent)
		return err
	})
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	return events, more, nil
}

// journaledMark is the mark of the last event that is in the journal.
const journaledMark = "journaled_event"

// UnjournaledEvents returns events that are not yet marked, oldest first. It returns none
// only if there are none.
func (e *Engine) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	after, err := e.Driver.Mark(ctx, journaledMark)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	events, _, err := e.Events(ctx, store.EventQuery{After: &after}, limit)
	return events, err
}

// MarkJournaled marks the events up to seq as written to the journal.
func (e *Engine) MarkJournaled(ctx context.Context, seq int64) error {
	return e.do(ctx, &op{run: func(g *group) error {
		g.mark(journaledMark, seq)
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
