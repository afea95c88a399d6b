package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// persist retries a write until it succeeds or the stream is over: agents repeat no
// report. The stream is not read meanwhile. A write that has begun continues when the
// stream ends.
func (s *Session) persist(what string, write func(context.Context) error) error {
	ctx := context.WithoutCancel(s.stream)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := write(ctx)
		if !errors.Is(err, fleet.ErrUnavailable) {
			return err
		}
		s.d.limited(s.log, troubleHeld, "").Warn("store unavailable, holding back", keyWhat, what, keyError, err)
		select {
		case <-time.After(wait):
			continue
		case <-s.stream.Done():
		case <-s.d.stopping:
		}
		s.d.limited(s.log, troubleLost, s.vm).Error("report lost", keyWhat, what, keyError, err)
		return err
	}
}

// Ack takes the agent's answer to a command; it is durable when Ack returns. An
// answer to nothing that this VM was sent is refused, and the session goes on.
// It returns an error only when the session is over.
func (s *Session) Ack(a fleet.Ack) error {
	arrived, done := s.d.unstored.add(s.arrive)
	defer done()
	if err := fleet.CheckID("command_ack.command_id", string(a.CommandID)); err != nil {
		s.refuse("ack", err)
		return nil
	}
	s.acked()
	var late bool
	err := s.persist("ack", func(ctx context.Context) error {
		out, err := s.d.Engine.Apply(ctx, fleet.AckReceived{VM: s.vm, Epoch: s.epoch, Ack: a}, arrived)
		late = out.Late
		return err
	})
	switch {
	case errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrNotDelivered), errors.Is(err, fleet.ErrDamaged):
		s.refuse("ack", err)
		return nil
	case errors.Is(err, fleet.ErrSuperseded):
		return nil // the reader goes on until the held stream is ended
	case err != nil:
		return err
	}
	if late {
		s.d.counters.lateAcks.Add(1)
	}
	return nil
}

// AckTruncated reports an ack that was too large to be taken whole. Of many, some
// are logged.
func (s *Session) AckTruncated(id fleet.CommandID, size, limit int) {
	s.d.limited(s.log, troubleAck, s.vm).
		Warn("ack truncated", keyCommand, clip(string(id)), keySize, size, keyLimit, limit)
}

// AckRepaired reports an ack that was malformed and could be read all the same. Of
// many, some are logged.
func (s *Session) AckRepaired(id fleet.CommandID, size int, fault error) {
	s.d.limited(s.log, troubleAck, s.vm).
		Warn("malformed ack repaired", keyCommand, clip(string(id)), keySize, size, keyError, fault)
}

// Event takes an event; it is durable when Event returns. One that breaks a
// rule is refused, and the session goes on. It returns an error only when the
// session is over.
func (s *Session) Event(e fleet.Event) error {
	arrived, done := s.d.unstored.add(s.arrive)
	defer done()
	if !s.admit("event", &e.Origin, arrived) {
		return nil
	}
	if err := e.Check(); err != nil {
		s.refuse("event", err)
		return nil
	}
	s.alive.event(e.Type)
	err := s.persist("event", func(ctx context.Context) error {
		_, err := s.d.Engine.Apply(ctx, fleet.EventReceived{Event: e}, arrived)
		return err
	})
	if err == nil {
		s.d.limited(s.log, troubleEvent, s.vm).Info("event received", keyEventType, e.Type)
	}
	return err
}

// Heartbeat takes a heartbeat, to be made durable with others within 100 ms; it
// blocks while too many wait. One that breaks a rule is refused, and the
// session goes on. render makes its file for the journal; it is called once at
// most, and perhaps after Heartbeat has returned.
func (s *Session) Heartbeat(h fleet.Heartbeat, render func() ([]byte, error)) error {
	arrived := s.d.arrivedAt(&s.alive, beatReceived)
	if errors.Is(s.Cause(), fleet.ErrSuperseded) || !s.admit("heartbeat", &h.Origin, arrived) {
		return nil
	}
	if err := h.Check(); err != nil {
		s.refuse("heartbeat", err)
		return nil
	}
	s.log.Debug("heartbeat received", keyStatus, h.Status)
	return s.d.beats.add(s.stream, h, render)
}

// Reported notes an error the agent reported. An agent that reports many has
// some of them logged.
func (s *Session) Reported(code, message string) {
	s.arrive()
	s.d.limited(s.log, troubleReported, s.vm).Warn("agent reported an error", keyCode, clip(code), keyMessage, clip(message))
}

// clip bounds what an agent can put on a log line.
func clip(s string) string { return s[:min(len(s), 512)] }

// Refuse counts a message that broke a rule. Of many, some are logged.
func (s *Session) Refuse(what string, why error) {
	s.arrive()
	s.refuse(what, why)
}

// refuse is Refuse for a message whose arrival was noted.
func (s *Session) refuse(what string, why error) {
	s.d.counters.refused.Add(1)
	s.d.limited(s.log, troubleRefused, s.vm).Warn("message refused", keyWhat, what, keyError, why)
}

// arrive stamps a message that was read just now: it is judged by that time,
// however long it takes to be stored.
func (s *Session) arrive() time.Time {
	return s.d.arrivedAt(&s.alive, fleet.Liveness.Receive)
}

func beatReceived(l fleet.Liveness, at time.Time) fleet.Liveness {
	return l.Receive(at).ReceiveHeartbeat(at)
}

// admit makes a report one of this session's. It refuses one that names another
// VM.
func (s *Session) admit(what string, o *fleet.Origin, arrived time.Time) bool {
	if o.VM != "" && o.VM != s.vm {
		s.refuse(what, fleet.Invalid("vm_id", "must be empty or the VM of the stream"))
		return false
	}
	o.VM, o.Via, o.Epoch, o.ReceivedAt = s.vm, fleet.Stream, s.epoch, arrived
	if o.Pool == "" {
		o.Pool = s.pool
	}
	if o.Org == "" {
		o.Org = s.org
	}
	return true
}
