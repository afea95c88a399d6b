package engine

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Tick applies a fleet.Tick to the VMs and commands that are due, at most limit of each,
// and returns how many it has processed and whether there were more. live returns what is
// known of the newest session of a VM, and must not block. A VM or command whose Tick fails
// is skipped, and Tick returns the last such error.
func (e *Engine) Tick(ctx context.Context, now time.Time, live func(fleet.VMID) fleet.Live, limit int) (n int, more bool, err error) {
	var due store.Rows
	err = e.undamaged(ctx, func() (err error) {
		due, more, err = e.Driver.Due(ctx, now, limit)
		return err
	})
	if err != nil {
		return 0, false, unavailable(ctx, err)
	}
	var ticks []fleet.Tick
	for _, row := range due.VMs {
		ticks = append(ticks, fleet.Tick{VM: fleet.VMID(row.ID), Live: live(fleet.VMID(row.ID))})
	}
	for _, row := range due.Commands {
		ticks = append(ticks, fleet.Tick{VM: fleet.VMID(row.VM), Command: fleet.CommandID(row.ID), Live: live(fleet.VMID(row.VM))})
	}
	if len(ticks) == 0 {
		return 0, false, nil
	}
	o := &op{}
	for _, t := range ticks {
		o.vms = append(o.vms, t.VM)
		if t.Command != "" {
			o.commands = append(o.commands, t.Command)
		}
	}
	o.run = func(g *group) error {
		var failed error
		for _, t := range ticks {
			_, err := g.reduce(t.VM, t, now)
			// A record that is not found has been purged or set aside meanwhile.
			if err != nil && !errors.Is(err, fleet.ErrNotFound) && !errors.Is(err, fleet.ErrDamaged) {
				failed = err
			}
		}
		return failed
	}
	return len(ticks), more, e.do(ctx, o)
}
