package dispatch

import (
	"context"
	"errors"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// AnswerStarted delivers the VM's register_runner in the answer to a vm_started that
// came over HTTP and is stored: the oldest agents take it from there and do not poll. It
// returns nil, and has delivered nothing, when Options.TokenInVMStarted is off, when the
// VM has a session or is registered in this boot, when a poll was handed a command of
// this boot, and when no token is available, which it logs. vm is the VM as it was after
// the event.
func (d *Dispatcher) AnswerStarted(ctx context.Context, vm fleet.VM) (*Offer, error) {
	if !d.TokenInVMStarted || !awaitsAnswer(vm) {
		return nil, nil //nolint:nilnil // as documented
	}
	now, err := d.polled(ctx, vm.ID)
	if err != nil || !awaitsAnswer(now) {
		return nil, err
	}
	o, err := d.lease(ctx, vm.ID, fleet.LeaseRequest{Via: fleet.HTTP, Started: true}, func() {})
	switch {
	case errors.Is(err, fleet.ErrNothingDue):
		return nil, nil //nolint:nilnil // as documented
	case errors.Is(err, fleet.ErrNoToken) && ctx.Err() == nil:
		d.limited(d.Log, troubleStarted, "").Warn("vm_started answered without a registration token", keyVM, vm.ID)
		return nil, nil //nolint:nilnil // as documented
	case err != nil:
		return nil, err
	}
	d.counters.delivered.Add(1)
	return &o, nil
}

// awaitsAnswer reports whether the answer to vm_started may register the VM.
func awaitsAnswer(v fleet.VM) bool {
	return !v.Connected && v.Registration.State != fleet.Registered
}
