package session

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// Lease is a leased command as its agent receives it.
type Lease struct {
	Command fleet.Command
	// Params are the command's, including those that are filled in at delivery. They may
	// contain a token: they must not be stored or logged.
	Params fleet.Params
	// TokenExpiresAt is zero when Params contain no token.
	TokenExpiresAt time.Time
}

// lease leases the VM's next command, unless it is leased already. Its params are filled in
// first: when a token is not available, that command stays pending, noToken is called, and
// the next one is leased. The error wraps fleet.ErrNoToken when only commands that wait for a
// token are due, and fleet.ErrNothingDue when no command is due.
func (r *Registry) lease(ctx context.Context, vm fleet.VMID, request fleet.LeaseRequest, noToken func()) (Lease, error) {
	var missing error
	for {
		request.At = r.Clock()
		state, err := r.Engine.State(ctx, vm)
		if err != nil {
			return Lease{}, err
		}
		next, err := state.Next(request)
		if errors.Is(err, fleet.ErrNothingDue) && missing != nil {
			return Lease{}, missing
		}
		if err != nil {
			return Lease{}, err
		}
		l, err := r.fill(ctx, state.VM, next)
		if errors.Is(err, fleet.ErrNoToken) && ctx.Err() == nil {
			noToken()
			missing, request.WithoutToken = err, true
			continue
		}
		if err != nil || next.LeasedTo(request.Epoch) {
			return l, err
		}
		request.At = r.Clock() // after the end of the previous command
		out, err := r.Engine.Apply(ctx, fleet.LeaseRequested{VM: vm, Command: next.ID, Request: request}, request.At)
		if l.Command = out.Command; !errors.Is(err, fleet.ErrNotDue) {
			return l, err
		}
		// The command was cancelled, has expired or was leased meanwhile: look again.
	}
}

// fill returns a command with its params filled in for delivery. When its token is not
// available, it records why and returns an error that wraps fleet.ErrNoToken.
func (r *Registry) fill(ctx context.Context, v fleet.VM, c fleet.Command) (Lease, error) {
	l := Lease{Command: c, Params: c.Params}
	if !c.NeedsToken() {
		return l, nil
	}
	var err error
	l.Params, l.TokenExpiresAt, err = r.Registrar.Fill(ctx, c)
	if errors.Is(err, fleet.ErrNoToken) && ctx.Err() == nil {
		err = r.tokenMissing(ctx, v, err)
	}
	return l, err
}

// tokenMissing records why a register_runner of the VM has no token. It returns err, or the
// error that kept it from being recorded.
func (r *Registry) tokenMissing(ctx context.Context, v fleet.VM, err error) error {
	why := fleet.ErrNoToken.Error()
	if known, ok := errors.AsType[*fleet.TokenError](err); ok {
		why = clip(known.Why)
	}
	if _, failed := r.Engine.Apply(ctx, fleet.TokenUnavailable{VM: v.ID, Why: why}, r.Clock()); failed != nil {
		return failed
	}
	if v.TokenWait.Why != why {
		r.limited(r.Log, logToken, "").WarnContext(ctx, "register_runner waits for a registration token", logkey.VM, v.ID, logkey.Reason, why)
	}
	return err
}
