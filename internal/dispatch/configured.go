package dispatch

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// RunnersConfigured notes that what runners are registered with has changed, such as the
// token: VMs whose registration has failed do not wait for their next attempt any longer.
// Those that are not connected are tried when they connect or poll.
func (d *Dispatcher) RunnersConfigured(ctx context.Context) {
	d.configuredAt.Store(d.Clock().UnixNano())
	for _, s := range d.registry.sessions() {
		state, err := d.Engine.State(ctx, s.vm)
		if err == nil && d.outdated(state.VM) {
			err = d.retry(ctx, state.VM)
		}
		if err != nil && ctx.Err() == nil {
			d.limited(s.log, troubleDelivery, "").Warn("registration not tried again at once", keyError, err)
		}
	}
}

// outdated reports whether the VM waits for its next attempt although what runners are
// registered with has changed since the last has failed.
func (d *Dispatcher) outdated(v fleet.VM) bool {
	return v.Registration.Delayed(d.Clock()) && v.Registration.LastFailure.At.Before(d.lastConfigured())
}

func (d *Dispatcher) lastConfigured() time.Time { return time.Unix(0, d.configuredAt.Load()).UTC() }

// retry has the next attempt made at once.
func (d *Dispatcher) retry(ctx context.Context, v fleet.VM) error {
	_, err := d.Engine.Apply(ctx, fleet.RunnersConfigured{VM: v.ID, At: d.lastConfigured()}, d.Clock())
	return err
}
