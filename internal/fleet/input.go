package fleet

import (
	"math"
	"slices"
	"time"
)

// CommandAccepted is a new command of an operator. If its id is in use for the same request,
// the outcome has the existing record; if for another one, it returns ErrIDTaken. A command
// that waits for no other is leased to the VM's live session immediately.
type CommandAccepted struct {
	New Command
	// RequestID identifies the request, for the log.
	RequestID string
}

// Subject implements Input.
func (in CommandAccepted) Subject() (VMID, CommandID) { return in.New.VM, in.New.ID }

func (in CommandAccepted) reduce(r *reduction) error {
	if known, ok := r.State.Command(in.New.ID); ok {
		if !known.SameRequest(in.New) {
			return ErrIDTaken
		}
		r.Command = known
		return nil
	}
	free := len(r.State.Commands) == 0
	r.Command = in.New
	r.accept(in.New)
	r.Changes[len(r.Changes)-1].RequestID = in.RequestID
	if v := r.vm(); free && v.Connected && !in.New.NeedsToken() {
		d := Delivery{Via: Stream, Epoch: v.Epoch, Boot: v.Boot, At: r.now}
		if r.deliver(in.New, d) == nil { // otherwise its deadline has passed
			r.leased = in.New.ID
		}
	}
	if g := &r.vm().Registration; in.New.NeedsToken() && r.State.Known() && (g.State == RegFailed || g.State == Unregistered) {
		g.State, g.NextAttemptAt, g.GraceUntil = Unregistered, noTime, noTime // this command registers it
		r.register()
	}
	return nil
}

// CancelRequested cancels a command. It returns ErrNotFound when the VM has no such
// command, and ErrEnded, with the record, when the command has ended otherwise.
type CancelRequested struct {
	VM      VMID
	Command CommandID
	// By is the name of the principal who has cancelled it.
	By string
}

// Subject implements Input.
func (in CancelRequested) Subject() (VMID, CommandID) { return in.VM, in.Command }

func (in CancelRequested) reduce(r *reduction) error {
	c, err := r.named(in.Command)
	if err != nil {
		return err
	}
	r.Command = c
	cancelled, err := c.Cancel(r.now)
	if err != nil || c.State == Cancelled {
		return err
	}
	cancelled.CancelledBy = in.By
	r.Command = cancelled
	r.put(cancelled, r.now)
	return nil
}

// SessionOpened gives the VM a new session, which supersedes the previous one, and requests
// its registration unless it is registered in this boot.
type SessionOpened struct {
	Hello Hello
	// Written is the last command that was written on the previous session.
	Written CommandID
}

// Subject implements Input.
func (in SessionOpened) Subject() (VMID, CommandID) { return in.Hello.VM, "" }

func (in SessionOpened) reduce(r *reduction) error {
	r.markKnown()
	if r.vm().Connected {
		r.endSession(in.Written)
	}
	r.State.VM = r.vm().OpenSession(in.Hello, r.now)
	r.beginCommandSession()
	v := r.vm()
	r.startPendingBoot()
	g := &v.Registration
	switch {
	case r.awaitingProof() && g.CheckAt.IsZero(): // begun by an earlier version
		g.CheckAt = r.now.Add(r.rules.registrationTimeoutOrDefault())
	case g.State == RegFailed && g.LastFailure.At.IsZero(): // in an earlier version
		g.NextAttemptAt = r.now
	case g.State == RegFailed:
		g.GraceUntil = noTime
	case v.ReadsNoCommands():
		g.ProbeAt = r.now.Add(v.probeDelay())
	}
	if slices.ContainsFunc(r.State.Commands, Command.repeatsRegistration) {
		v.AwaitsRunnerUntil = r.now.Add(runnerReportTimeout)
	}
	return nil
}

// endSession applies the end of the newest session. An attempt to register the runner
// continues if the agent shows within a grace period that it still registers it.
func (r *reduction) endSession(written CommandID) {
	r.endDeliveries(written)
	r.suspendRegistration()
}

// suspendRegistration ends the probe, and begins the grace period of an attempt.
func (r *reduction) suspendRegistration() {
	r.endProbe()
	if g := &r.vm().Registration; r.awaitingProof() && g.GraceUntil.IsZero() {
		g.GraceUntil = r.now.Add(registrationGrace)
	}
}

// runnerReportTimeout is how long a register_runner that was sent on an earlier session
// waits for the agent to report whether its runner is registered. With the time until the
// next Tick this is about a second.
const runnerReportTimeout = 750 * time.Millisecond

// SessionClosed ends the session with this epoch. The end of a superseded session changes
// nothing. It returns ErrNotFound when the VM was never seen.
type SessionClosed struct {
	VM    VMID
	Epoch Epoch
	// Written is the last command that was written on it.
	Written CommandID
}

// Subject implements Input.
func (in SessionClosed) Subject() (VMID, CommandID) { return in.VM, "" }

func (in SessionClosed) reduce(r *reduction) error {
	if !r.State.Known() {
		return ErrNotFound
	}
	closed := r.vm().CloseSession(in.Epoch, r.now)
	if !r.vm().Connected || closed.Connected {
		return nil // it was superseded, or has already ended
	}
	r.State.VM = closed
	r.endSession(in.Written)
	return nil
}

// ControllerRestarted ends the session that was live when the controller last stopped. What
// was last written on it is not known: a leased command counts as delivered.
type ControllerRestarted struct {
	VM VMID
	// LastHeartbeat and LastAckAt are the latest that are stored; nil and zero mean none.
	// After a crash the record of the VM may lack them.
	LastHeartbeat *Heartbeat
	LastAckAt     time.Time
}

// Subject implements Input.
func (in ControllerRestarted) Subject() (VMID, CommandID) { return in.VM, "" }

func (in ControllerRestarted) reduce(r *reduction) error {
	for _, c := range r.State.Commands {
		r.endCommandSession(c, math.MaxInt64)
	}
	if r.State.Known() {
		v := r.vm().restore(in.LastHeartbeat, in.LastAckAt)
		r.State.VM = v.CloseSession(v.Epoch, r.now)
		if v.Connected {
			r.suspendRegistration()
		}
	}
	return nil
}

// RunnersConfigured is a change of the registration settings, such as the token: if the
// VM's registration failed before it, the next attempt is made immediately. It returns
// ErrNotFound when the VM was never seen.
type RunnersConfigured struct {
	VM VMID
	At time.Time
}

// Subject implements Input.
func (in RunnersConfigured) Subject() (VMID, CommandID) { return in.VM, "" }

func (in RunnersConfigured) reduce(r *reduction) error {
	if !r.State.Known() {
		return ErrNotFound
	}
	if g := &r.vm().Registration; g.Delayed(r.now) && g.LastFailure.At.Before(in.At) {
		g.NextAttemptAt = r.now
	}
	return nil
}

// Delayed reports whether the next attempt is scheduled for later than now.
func (g Registration) Delayed(now time.Time) bool {
	return g.State == RegFailed && g.NextAttemptAt.After(now)
}

// Polled means that a VM asks for its commands over HTTP. It requests the registration of
// the VM unless it is registered in this boot.
type Polled struct{ VM VMID }

// Subject implements Input.
func (in Polled) Subject() (VMID, CommandID) { return in.VM, "" }

func (in Polled) reduce(r *reduction) error {
	r.markKnown()
	r.vm().LastSeenAt = r.now
	r.startPendingBoot()
	r.register()
	return nil
}

// LeaseRequested leases a command for a delivery that is about to be made. It returns
// ErrNotDue when that command is not what State.Next returns now, ErrNothingDue for a poll
// of a VM that has a session, and ErrSuperseded when a newer session has superseded this
// one.
type LeaseRequested struct {
	VM      VMID
	Command CommandID
	Request LeaseRequest
}

// Subject implements Input.
func (in LeaseRequested) Subject() (VMID, CommandID) { return in.VM, "" }

func (in LeaseRequested) reduce(r *reduction) error {
	d, err := r.vm().delivery(in.Request)
	if err != nil {
		return err
	}
	next, err := r.State.next(d, in.Request.Written, in.Request.WithoutToken)
	if err != nil || next.ID != in.Command {
		return ErrNotDue
	}
	return r.deliver(next, d)
}

// DeliveryFailed releases the lease of a delivery on a live session that was not written to
// the agent in full. It has no effect if the command has changed since, and returns
// ErrNotFound if the VM has no such command.
type DeliveryFailed struct {
	VM      VMID
	Command CommandID
	Epoch   Epoch
}

// Subject implements Input.
func (in DeliveryFailed) Subject() (VMID, CommandID) { return in.VM, in.Command }

func (in DeliveryFailed) reduce(r *reduction) error {
	c, err := r.named(in.Command)
	if err != nil {
		return err
	}
	if c.LeasedTo(in.Epoch) {
		r.put(c.ReleaseLease(in.Epoch), r.now)
	}
	return nil
}

// TokenUnavailable records why a register_runner of the VM has no token. It has no effect
// once that command has ended. It returns ErrNotFound when the VM was never seen.
type TokenUnavailable struct {
	VM  VMID
	Why string
}

// Subject implements Input.
func (in TokenUnavailable) Subject() (VMID, CommandID) { return in.VM, "" }

func (in TokenUnavailable) reduce(r *reduction) error {
	v := r.vm()
	if !r.State.Known() {
		return ErrNotFound
	}
	if !slices.ContainsFunc(r.State.Commands, Command.NeedsToken) {
		return nil // the command has ended meanwhile
	}
	v.TokenWait = v.TokenWait.Fail(in.Why, r.now)
	if v.Connected {
		v.TokenWait.RetryAt = v.TokenWait.NextTry(r.now)
	}
	r.sendable = true // other commands overtake it
	return nil
}

// Live is what the session layer knows of the newest session of a VM.
type Live struct {
	Epoch Epoch
	// Written is the last command that was written on it.
	Written CommandID
	// LastMessageAt is when the latest message arrived on it.
	LastMessageAt time.Time
}

// Tick is the passing of time for a VM and, if named, one of its commands. It ends a
// command whose time is up, or postpones its end, as Command.Expire does. It returns
// ErrNotFound when the VM has no such command.
type Tick struct {
	VM      VMID
	Command CommandID
	Live    Live
}

// Subject implements Input.
func (in Tick) Subject() (VMID, CommandID) { return in.VM, in.Command }

func (in Tick) reduce(r *reduction) error {
	r.tickVM()
	if in.Command == "" {
		return nil
	}
	c, err := r.named(in.Command)
	if err != nil {
		return err
	}
	var lastMessageAt time.Time
	if c.LeasedTo(in.Live.Epoch) && c.ID == in.Live.Written {
		lastMessageAt = in.Live.LastMessageAt
	}
	switch lapsed := c.Expire(r.now, lastMessageAt, r.State.VM); {
	case lapsed.State != c.State:
		r.put(lapsed, r.now)
	case !lapsed.DueAt.Equal(c.DueAt):
		r.putQuietly(lapsed)
	}
	return nil
}

// tickVM applies what is due for the VM itself.
func (r *reduction) tickVM() {
	due := func(at time.Time) bool { return !at.IsZero() && !r.now.Before(at) }
	v := r.vm()
	if due(v.AwaitsRunnerUntil) {
		v.AwaitsRunnerUntil = noTime
	}
	if w := &v.TokenWait; due(w.RetryAt) { // a command in flight comes first; its end triggers the next try
		w.RetryAt = noTime
		if r.tokenRetryDue = v.Connected && !r.inFlight(); r.tokenRetryDue {
			w.RetryAt = w.NextTry(r.now)
		}
	}
	if g := v.Registration; g.State == Requested && (due(g.CheckAt) || due(g.GraceUntil)) {
		r.checkAttempt()
	}
	if due(v.Registration.ProbeAt) {
		r.probe()
	}
}
