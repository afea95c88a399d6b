package fleet

import "time"

// ClockMoved is a step of the controller's clock; a negative By means that the clock was
// set back. It shifts those times of the VM, or of the command if it names one, that are
// compared with the present: every time that the controller's clock has set, except for the
// history. So nothing ends earlier or later because of the step. In the change log it
// appears as a change of the VM, whose times are visible, but not as a step of its
// commands.
//
// It must be applied once to each record that is older than the step, and to none that
// is younger. It returns ErrNotFound when the VM has no such command.
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
			r.State.VM = r.vm().moveClock(in.By)
		}
		return nil
	}
	c, err := r.named(in.Command)
	if err != nil || c.State.Terminal() {
		return err
	}
	r.putQuietly(c.moveClock(in.By))
	return nil
}

// moveClock returns v with its times shifted. FirstSeenAt is history, and the times when
// something was sent or began are from the agent's clock.
func (v VM) moveClock(by time.Duration) VM {
	g := &v.Registration
	for _, t := range []*time.Time{
		&v.BootedAt, &v.BootSeenAt, &v.ContestedAt, &v.SpentAt, &v.CrashedAt, &v.LastSeenAt, &v.ConnectedAt, &v.DisconnectedAt,
		&v.LastHeartbeatAt, &v.LastAckAt, &v.AwaitsRunnerUntil, &v.TokenWait.Since, &v.TokenWait.RetryAt, &v.DueAt,
		&g.RequestedAt, &g.ProvenAt, &g.CheckAt, &g.GraceUntil, &g.LastFailure.At, &g.NextAttemptAt, &g.ProbeAt,
	} {
		moveTime(t, by)
	}
	return v
}

// moveClock returns an open command with its times shifted. CreatedAt is from the caller's
// clock; the others are set when the command ends.
func (c Command) moveClock(by time.Duration) Command {
	for _, t := range []*time.Time{&c.AcceptedAt, &c.ExpiresAt, &c.Last.At, &c.DueAt} {
		moveTime(t, by)
	}
	return c
}

// MoveClock returns l with its times shifted.
func (l Liveness) MoveClock(by time.Duration) Liveness {
	for _, t := range []*time.Time{&l.OpenedAt, &l.LastMessageAt, &l.LastHeartbeatAt, &l.SuspectAt} {
		moveTime(t, by)
	}
	return l
}

// moveTime shifts a time that is set.
func moveTime(t *time.Time, by time.Duration) {
	if !t.IsZero() {
		*t = t.Add(by)
	}
}

// AfterJump returns an input that was made before a clock step and is reduced after it,
// with its times shifted.
func AfterJump(in Input, by time.Duration) Input {
	switch in := in.(type) {
	case CommandAccepted:
		in.New = in.New.moveClock(by)
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
