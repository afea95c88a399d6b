package session

import (
	"context"
	"errors"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// Poll leases the next command of a VM that has no session. It returns at most one.
func (r *Registry) Poll(ctx context.Context, vm fleet.VMID) ([]Lease, error) {
	r.metrics.requested[kindPoll].Inc()
	v, err := r.polled(ctx, vm)
	if err != nil || v.Connected {
		return nil, err
	}
	l, err := r.lease(ctx, vm, fleet.LeaseRequest{Via: fleet.HTTP}, func() {})
	switch {
	case errors.Is(err, fleet.ErrNothingDue):
		return nil, nil
	case err != nil:
		return nil, err
	}
	r.delivered.Add(1)
	r.Traces.Deliver(ctx, &l.Command, v.Pool).End(nil)
	return []Lease{l}, nil
}

// polled records that a VM polls, and returns the VM as it is then.
func (r *Registry) polled(ctx context.Context, vm fleet.VMID) (fleet.VM, error) {
	out, err := r.Engine.Apply(ctx, fleet.Polled{VM: vm}, r.receivedAt())
	if err == nil && r.outdated(out.State.VM) {
		if err = r.retry(ctx, out.State.VM); err == nil {
			out, err = r.Engine.Apply(ctx, fleet.Polled{VM: vm}, r.receivedAt())
		}
	}
	return out.State.VM, err
}

// Token mints a runner configuration for a VM.
func (r *Registry) Token(
	ctx context.Context, vm fleet.VMID, group string, labels []string,
) (registration.Runner, error) {
	r.metrics.requested[kindTokenRequest].Inc()
	runner, err := r.Registrar.Runner(ctx, group, labels)
	if err == nil {
		r.limited(r.Log, logTokenIssued, vm).InfoContext(ctx, "registration token issued", logkey.VM, vm)
	}
	return runner, err
}

// ReportEvent stores an event that arrived over HTTP, without its secrets; it is durable when
// ReportEvent returns. It returns the VM as it is then and the event as stored, or a
// *fleet.ThrottledError when the VM reports more than it may.
func (r *Registry) ReportEvent(ctx context.Context, e fleet.Event) (fleet.VM, fleet.Event, error) {
	r.metrics.requested[KindEvent].Inc()
	arrived, done := r.unstored.add(r.receivedAt)
	defer done()
	e.Via, e.Epoch, e.ReceivedAt = fleet.HTTP, 0, arrived
	if err := e.Check(); err != nil {
		return fleet.VM{}, e, err
	}
	if err := r.admitReport(e.VM, len(e.Body)); err != nil {
		return fleet.VM{}, e, err
	}
	r.suspect(e.VM)
	e.Body = fleet.WithoutSecretMembers(e.Body)
	out, err := r.Engine.Apply(ctx, fleet.EventReceived{Event: e}, arrived)
	if err != nil {
		return fleet.VM{}, e, err
	}
	r.limited(r.Log, logEvent, e.VM).InfoContext(ctx, "event received", logkey.VM, e.VM, logkey.EventType, e.Type, logkey.Via, fleet.HTTP)
	return out.State.VM, *out.Event, nil
}

// ReportHeartbeat stores a heartbeat that arrived over HTTP, without its secrets; it becomes
// durable together with others within 100 ms. It returns a *fleet.ThrottledError when the VM reports more than it
// may.
func (r *Registry) ReportHeartbeat(ctx context.Context, h fleet.Heartbeat) error {
	r.metrics.requested[KindHeartbeat].Inc()
	h.Via, h.Epoch, h.ReceivedAt = fleet.HTTP, 0, r.receivedAt()
	if err := h.Check(); err != nil {
		return err
	}
	if err := r.admitReport(h.VM, len(h.Body)); err != nil {
		return err
	}
	r.suspect(h.VM)
	h.Body = fleet.WithoutSecretMembers(h.Body)
	if err := r.beats.failing(); err != nil {
		return err
	}
	r.Log.DebugContext(ctx, "heartbeat received", logkey.VM, h.VM, keyStatus, h.Status, logkey.Via, fleet.HTTP)
	return r.beats.add(ctx, h, func() ([]byte, error) { return h.Body, nil })
}
