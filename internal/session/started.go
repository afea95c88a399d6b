package session

import (
	"context"
	"errors"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// AnswerStarted leases the VM's register_runner for the response to a stored vm_started that
// arrived over HTTP: the oldest agents read it there and do not poll. vm is the VM as it was
// after the event. It returns nil, having leased nothing, when Options.TokenInVMStarted is
// off, when the VM has a session or is registered in this boot, when a poll received a command
// of this boot, and when no token is available, which it logs.
func (r *Registry) AnswerStarted(ctx context.Context, vm fleet.VM) (*Lease, error) {
	if !r.TokenInVMStarted || !awaitsAnswer(vm) {
		return nil, nil //nolint:nilnil // as documented
	}
	now, err := r.polled(ctx, vm.ID)
	if err != nil || !awaitsAnswer(now) {
		return nil, err
	}
	l, err := r.lease(ctx, vm.ID, fleet.LeaseRequest{Via: fleet.HTTP, Started: true}, func() {})
	switch {
	case errors.Is(err, fleet.ErrNothingDue):
		return nil, nil //nolint:nilnil // as documented
	case errors.Is(err, fleet.ErrNoToken) && ctx.Err() == nil:
		r.limited(r.Log, logStarted, "").WarnContext(ctx, "vm_started answered without a registration token", logkey.VM, vm.ID)
		return nil, nil //nolint:nilnil // as documented
	case err != nil:
		return nil, err
	}
	r.delivered.Add(1)
	r.Traces.Deliver(ctx, &l.Command, vm.Pool).End(nil)
	return &l, nil
}

// awaitsAnswer reports whether the response to vm_started may register the VM.
func awaitsAnswer(v fleet.VM) bool {
	return !v.Connected && v.Registration.State != fleet.Registered
}
