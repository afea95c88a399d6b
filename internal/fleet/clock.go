package fleet

import "time"

// ClockMoved is a step of the controller's clock; By is negative when it was set back. It
// shifts the times of the VM, or of the command if it names one, that the controller's clock
// has set and that are compared with the present. So nothing ends earlier or later because
// of the step. The change log gets a change of the VM, whose times are visible, but none of
// its commands.
//
// Apply it exactly once to each record that is older than the step, and to no newer one. It
// returns ErrNotFound when the VM has no such command.
type ClockMoved struct {
	VM      VMID
	Command CommandID
	By      time.Duration
}

// Subject implements Input.
func (in ClockMoved) Subject() (VMID, CommandID) { return in.VM, in.Command }

func (in ClockMoved) reduce(r *reduction) error {
	if in.Command == "" {
		if r.State.Known() {
			r.State.VM = r.vm().shiftTimes(in.By)
		}
		return nil
	}
	c, err := r.named(in.Command)
	if err != nil || c.State.Terminal() {
		return err
	}
	r.putQuietly(c.shiftTimes(in.By))
	return nil
}

// shiftTimes returns v with its times shifted. FirstSeenAt is compared with nothing, and the
// times at which something was sent or began are from the agent's clock.
func (v VM) shiftTimes(by time.Duration) VM {
	g := &v.Registration
	for _, t := range []*time.Time{
		&v.BootedAt, &v.BootSeenAt, &v.ContestedAt, &v.SpentAt, &v.CrashedAt, &v.LastSeenAt, &v.ConnectedAt, &v.DisconnectedAt,
		&v.LastHeartbeatAt, &v.LastAckAt, &v.AwaitsRunnerUntil, &v.TokenWait.Since, &v.TokenWait.RetryAt, &v.DueAt,
		&g.RequestedAt, &g.ProvenAt, &g.CheckAt, &g.GraceUntil, &g.LastFailure.At, &g.NextAttemptAt, &g.ProbeAt,
	} {
		shiftTime(t, by)
	}
	return v
}

// shiftTimes returns an open command with its times shifted. CreatedAt is from the caller's
// clock; the others are set when the command ends.
func (c Command) shiftTimes(by time.Duration) Command {
	for _, t := range []*time.Time{&c.AcceptedAt, &c.ExpiresAt, &c.Last.At, &c.DueAt} {
		shiftTime(t, by)
	}
	return c
}

// ShiftTimes returns l with its times shifted.
func (l Liveness) ShiftTimes(by time.Duration) Liveness {
	for _, t := range []*time.Time{&l.OpenedAt, &l.LastMessageAt, &l.LastHeartbeatAt, &l.SuspectAt} {
		shiftTime(t, by)
	}
	return l
}

// shiftTime shifts a time that is set.
func shiftTime(t *time.Time, by time.Duration) {
	if !t.IsZero() {
		*t = t.Add(by)
	}
}

// ShiftInput returns an input that was made before a clock step and is reduced after it,
// with its times shifted.
func ShiftInput(in Input, by time.Duration) Input {
	switch in := in.(type) {
	case CommandAccepted:
		in.New = in.New.shiftTimes(by)
		return in
	case LeaseRequested:
		in.Request.At = in.Request.At.Add(by)
		return in
	case RunnersConfigured:
		in.At = in.At.Add(by)
		return in
	case EventReceived:
		in.Event.ReceivedAt = in.Event.ReceivedAt.Add(by)
		return in
	case HeartbeatReceived:
		h := *in.Heartbeat
		h.ReceivedAt = h.ReceivedAt.Add(by)
		return HeartbeatReceived{Heartbeat: &h}
	default:
		return in
	}
}
