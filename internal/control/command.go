package control

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// MaxWait is the longest that Send waits for a command to end.
const MaxWait = time.Hour

// headStart is how long before its caller's deadline a wait ends, so that the answer
// arrives in time.
const headStart = 500 * time.Millisecond

// lastLook is how long a wait that is over may take to read the record.
const lastLook = 2 * time.Second

// Send accepts a command; it is durable when Send returns without an error. A
// repeated id with the same request returns the existing record.
//
// With a wait, Send returns when the command has ended, the wait is over, ctx has ended or
// the Control is closed, whichever is first, with the current record. A wait ends half a
// second before the deadline of ctx, or halfway to one that is less than a second away.
// Once the command is accepted Send returns no error: its caller would take the command for
// rejected. The exception is a VM that leaves the pools of a limited caller during the wait,
// which ends it: the caller then gets fleet.ErrNotFound, as from every later call.
//
// Errors: a *fleet.FieldError, fleet.ErrIDTaken, fleet.ErrDamaged, fleet.ErrUnavailable. A
// limited caller gets fleet.ErrNotFound for a VM that it does not see, whatever the id is, and
// fleet.ErrIDTaken for an id that is in use for any other command, damaged or not.
func (c *Control) Send(ctx context.Context, r fleet.CommandRequest, wait time.Duration) (fleet.Command, error) {
	if err := fleet.CheckDuration("wait", wait, MaxWait); err != nil {
		return fleet.Command{}, err
	}
	cmd, err := r.Accept(c.defaults, c.clock())
	if err != nil {
		return fleet.Command{}, err
	}
	cmd.RequestedBy = callerOf(ctx)
	audit.From(ctx).Concerns(string(cmd.VM), string(cmd.ID), cmd.Type)
	// Join first: the command may end as soon as it is enqueued.
	ended, leave := c.waits.join(cmd.ID)
	defer leave()
	caller := reachOf(ctx)
	if cmd, err = c.enqueue(ctx, caller, cmd); err != nil {
		return cmd, err
	}
	if wait == 0 {
		return c.explainOne(ctx, cmd), nil
	}
	cmd = c.explainOne(ctx, c.await(ctx, caller, cmd, wait, ended))
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	if err := c.requireSeen(look, caller, cmd.VM); err != nil {
		return fleet.Command{}, named(err, "VM", string(cmd.VM))
	}
	return cmd, nil
}

// callerOf returns the name of the principal of a call; empty if it did not need credentials.
func callerOf(ctx context.Context) string {
	p := auth.From(ctx)
	if p.Method == auth.Unauthenticated {
		return ""
	}
	return p.Name
}

func (c *Control) enqueue(ctx context.Context, r reach, cmd fleet.Command) (fleet.Command, error) {
	ctx, span := c.traces.Accept(ctx, &cmd)
	kept, err := c.engine.AcceptWithin(ctx, cmd, r.in())
	span.Accepted(&kept, err)
	if r.limited() && errors.Is(err, fleet.ErrDamaged) {
		// The engine finds that before it applies the limit.
		if err = c.requireSeen(ctx, r, cmd.VM); err == nil {
			err = fleet.ErrIDTaken
		}
	}
	switch {
	case errors.Is(err, fleet.ErrNotFound):
		return fleet.Command{}, named(err, "VM", string(cmd.VM))
	case err != nil:
		return fleet.Command{}, named(err, "command", string(cmd.ID))
	default:
		return kept, nil
	}
}

// await blocks as Send promises, and returns the current record of cmd.
func (c *Control) await(
	ctx context.Context, r reach, cmd fleet.Command, wait time.Duration, ended <-chan fleet.Command,
) fleet.Command {
	if cmd.State.Terminal() {
		return cmd
	}
	c.metrics.waits.Inc()
	defer c.metrics.waits.Dec()
	over := time.NewTimer(endBefore(ctx, wait))
	defer over.Stop()
	changed, leave := c.joinChanges(r, cmd.VM)
	defer leave()
	for {
		if seen, err := c.sees(ctx, r, cmd.VM); err == nil && !seen {
			return cmd
		}
		select {
		case outline := <-ended:
			outline.Params = cmd.Params
			return outline
		case <-changed:
			continue
		case <-over.C:
		case <-ctx.Done():
		case <-c.closed:
		}
		return c.latest(ctx, cmd)
	}
}

// joinChanges waits for changes of a VM that a limited caller may stop seeing, until leave is
// called.
func (c *Control) joinChanges(r reach, vm fleet.VMID) (changed <-chan int64, leave func()) {
	if !r.limited() {
		return nil, func() {}
	}
	return c.watches.join(vm)
}

// endBefore returns wait, shortened so that it ends before the deadline of ctx.
func endBefore(ctx context.Context, wait time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return wait
	}
	left := time.Until(deadline)
	return min(wait, left-min(left/2, headStart))
}

// latest reads cmd again, even if its caller has gone. It returns cmd itself if that fails.
func (c *Control) latest(ctx context.Context, cmd fleet.Command) fleet.Command {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	now, err := c.engine.Command(ctx, cmd.ID)
	if err != nil {
		c.limiter.Limited(c.log, "awaited command not read", "", c.clock()).
			WarnContext(ctx, "awaited command not read", logkey.Command, cmd.ID, logkey.Error, err)
		return cmd
	}
	return now
}

// Command returns one command. Errors: a *fleet.FieldError, fleet.ErrNotFound,
// fleet.ErrDamaged, fleet.ErrUnavailable. In this and in every other method, a limited caller
// gets fleet.ErrNotFound for records of VMs that it does not see, and for damaged ones.
func (c *Control) Command(ctx context.Context, id string) (fleet.Command, error) {
	if err := fleet.CheckID("command_id", id); err != nil {
		return fleet.Command{}, err
	}
	r := reachOf(ctx)
	cmd, err := c.engine.Command(ctx, fleet.CommandID(id))
	if err == nil {
		err = c.requireSeen(ctx, r, cmd.VM)
	}
	if err != nil {
		return fleet.Command{}, named(r.hide(err), "command", id)
	}
	return c.explainOne(ctx, cmd), nil
}

// Cancel cancels a command; that is durable when Cancel returns without an error. Errors: a
// *fleet.FieldError, fleet.ErrNotFound, fleet.ErrEnded with the record, fleet.ErrDamaged,
// fleet.ErrUnavailable.
func (c *Control) Cancel(ctx context.Context, id string) (fleet.Command, error) {
	if err := fleet.CheckID("command_id", id); err != nil {
		return fleet.Command{}, err
	}
	r := reachOf(ctx)
	cmd, err := c.engine.Command(ctx, fleet.CommandID(id))
	if err != nil {
		return fleet.Command{}, named(r.hide(err), "command", id)
	}
	audit.From(ctx).Concerns(string(cmd.VM), "", cmd.Type)
	out, err := c.engine.Apply(ctx, fleet.Limit(fleet.CancelRequested{VM: cmd.VM, Command: cmd.ID, By: callerOf(ctx)}, r.in()), c.clock())
	if err != nil {
		return out.Command, named(r.hide(err), "command", id)
	}
	return out.Command, nil
}

// VM returns one VM. Errors: a *fleet.FieldError, fleet.ErrNotFound, fleet.ErrDamaged
// until the VM reports again, fleet.ErrUnavailable.
func (c *Control) VM(ctx context.Context, id string) (fleet.VM, error) {
	vm, err := fleet.ParseVMID(id)
	if err != nil {
		return fleet.VM{}, err
	}
	r := reachOf(ctx)
	v, err := c.engine.VM(ctx, vm)
	if err == nil && !r.has(v) {
		err = fleet.ErrNotFound
	}
	if err != nil {
		return fleet.VM{}, named(r.hide(err), "VM", id)
	}
	return v, nil
}
