package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// Offer is a leased command as its agent gets it.
type Offer struct {
	Command fleet.Command
	// Params are the command's, with what is filled in at delivery. They may
	// hold a token: they must not be stored or logged.
	Params fleet.Params
	// TokenExpiresAt is zero when Params hold no token.
	TokenExpiresAt time.Time
}

// lease leases the VM's next command, unless that is leased already. Its parameters
// are completed first: when a token is not available, its command stays as it is,
// noToken is called, and the next command is leased. The error wraps fleet.ErrNoToken
// when only such commands are due, and fleet.ErrNothingDue when none is.
func (d *Dispatcher) lease(ctx context.Context, vm fleet.VMID, a fleet.LeaseRequest, noToken func()) (Offer, error) {
	var missing error
	for {
		a.At = d.Clock()
		state, err := d.Engine.State(ctx, vm)
		if err != nil {
			return Offer{}, err
		}
		next, err := state.Next(a)
		if errors.Is(err, fleet.ErrNothingDue) && missing != nil {
			return Offer{}, missing
		}
		if err != nil {
			return Offer{}, err
		}
		o := Offer{Params: next.Params}
		if next.NeedsToken() {
			o.Params, o.TokenExpiresAt, err = d.Registrar.Fill(ctx, next)
			if errors.Is(err, fleet.ErrNoToken) && ctx.Err() == nil {
				err = d.tokenMissing(ctx, state.VM, err)
				if errors.Is(err, fleet.ErrNoToken) { // and that is kept
					noToken()
					missing, a.WithoutToken = err, true
					continue
				}
			}
			if err != nil {
				return Offer{}, err
			}
		}
		if next.LeasedTo(a.Epoch) {
			o.Command = next
			return o, nil
		}
		a.At = d.Clock() // later than the end of the command before
		out, err := d.Engine.Apply(ctx, fleet.LeaseRequested{VM: vm, Command: next.ID, Request: a}, a.At)
		if o.Command = out.Command; !errors.Is(err, fleet.ErrNotDue) {
			return o, err
		}
		// It was cancelled, expired or leased meanwhile: look again.
	}
}

// tokenMissing notes why a register_runner of the VM has no token and returns err.
func (d *Dispatcher) tokenMissing(ctx context.Context, v fleet.VM, err error) error {
	why := fleet.ErrNoToken.Error()
	if known, ok := errors.AsType[*fleet.TokenError](err); ok {
		why = clip(known.Why)
	}
	if _, failed := d.Engine.Apply(ctx, fleet.TokenUnavailable{VM: v.ID, Why: why}, d.Clock()); failed != nil {
		return failed
	}
	if v.TokenWait.Why != why {
		d.limited(d.Log, troubleToken, "").Warn("register_runner waits for a registration token", keyVM, v.ID, keyReason, why)
	}
	return err
}

// Poll hands out the next command of a VM that has no session: at most one.
func (d *Dispatcher) Poll(ctx context.Context, vm fleet.VMID) ([]Offer, error) {
	v, err := d.polled(ctx, vm)
	if err != nil || v.Connected {
		return nil, err
	}
	o, err := d.lease(ctx, vm, fleet.LeaseRequest{Via: fleet.HTTP}, func() {})
	switch {
	case errors.Is(err, fleet.ErrNothingDue):
		return nil, nil
	case err != nil:
		return nil, err
	}
	d.counters.delivered.Add(1)
	return []Offer{o}, nil
}

// polled notes that a VM asks for its commands, and returns the VM as it is then.
func (d *Dispatcher) polled(ctx context.Context, vm fleet.VMID) (fleet.VM, error) {
	out, err := d.Engine.Apply(ctx, fleet.Polled{VM: vm}, d.receivedAt())
	if err == nil && d.outdated(out.State.VM) {
		if err = d.retry(ctx, out.State.VM); err == nil {
			out, err = d.Engine.Apply(ctx, fleet.Polled{VM: vm}, d.receivedAt())
		}
	}
	return out.State.VM, err
}

// Token mints a runner configuration for a VM.
func (d *Dispatcher) Token(
	ctx context.Context, vm fleet.VMID, group string, labels []string,
) (registration.Runner, error) {
	r, err := d.Registrar.Runner(ctx, group, labels)
	if err == nil {
		d.limited(d.Log, troubleHandedOut, vm).Info("registration token handed out", keyVM, vm)
	}
	return r, err
}

// ReportEvent keeps an event that came over HTTP; it is durable when
// ReportEvent returns. It returns the VM as it is then and the event as kept, or a
// *fleet.ThrottledError when the VM reports more than it may.
func (d *Dispatcher) ReportEvent(ctx context.Context, e fleet.Event) (fleet.VM, fleet.Event, error) {
	arrived, done := d.unstored.add(d.receivedAt)
	defer done()
	e.Via, e.Epoch, e.ReceivedAt = fleet.HTTP, 0, arrived
	if err := e.Check(); err != nil {
		return fleet.VM{}, e, err
	}
	if err := d.admitReport(e.VM, len(e.Body)); err != nil {
		return fleet.VM{}, e, err
	}
	d.suspect(e.VM)
	out, err := d.Engine.Apply(ctx, fleet.EventReceived{Event: e}, arrived)
	if err != nil {
		return fleet.VM{}, e, err
	}
	d.limited(d.Log, troubleEvent, e.VM).Info("event received", keyVM, e.VM, keyEventType, e.Type, keyVia, fleet.HTTP)
	return out.State.VM, *out.Event, nil
}

// ReportHeartbeat keeps a heartbeat that came over HTTP, to be made durable
// with others within 100 ms. It returns a *fleet.ThrottledError when the VM reports more
// than it may.
func (d *Dispatcher) ReportHeartbeat(ctx context.Context, h fleet.Heartbeat) error {
	h.Via, h.Epoch, h.ReceivedAt = fleet.HTTP, 0, d.receivedAt()
	if err := h.Check(); err != nil {
		return err
	}
	if err := d.admitReport(h.VM, len(h.Body)); err != nil {
		return err
	}
	d.suspect(h.VM)
	if err := d.beats.failing(); err != nil {
		return err
	}
	d.Log.Debug("heartbeat received", keyVM, h.VM, keyStatus, h.Status, keyVia, fleet.HTTP)
	return d.beats.add(ctx, h, func() ([]byte, error) { return h.Body, nil })
}
