package session

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// persist retries a write until it succeeds or the stream ends, because agents send no
// report twice. The stream is not read meanwhile. A write that has begun continues when
// the stream ends.
func (s *Session) persist(what string, write func(context.Context) error) error {
	ctx := context.WithoutCancel(s.stream)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := write(ctx)
		if !errors.Is(err, fleet.ErrUnavailable) {
			return err
		}
		s.registry.limited(s.log, logStoreUnavailable, "").Warn("store unavailable, retrying", keyWhat, what, logkey.Error, err)
		select {
		case <-time.After(wait):
			continue
		case <-s.stream.Done():
		case <-s.registry.stopping:
		}
		s.registry.limited(s.log, logReportLost, s.vm).Error("report lost", keyWhat, what, logkey.Error, err)
		return err
	}
}

// Ack stores the ack of a command, without the secrets in its result; it is durable when Ack
// returns. An ack of a command that
// was not delivered to this VM is refused, and the session continues. Ack returns an error
// only when the session has ended.
func (s *Session) Ack(a fleet.Ack) error {
	began := time.Now()
	arrived, done := s.registry.unstored.add(func() time.Time { return s.arrive(KindAck) })
	defer done()
	if err := fleet.CheckID("command_ack.command_id", string(a.CommandID)); err != nil {
		s.refuse(KindAck, err)
		return nil
	}
	a.Result = fleet.WithoutSecrets(a.Result)
	s.acked()
	delivery := s.deliveryOf(a.CommandID) // before the next command is delivered
	var out fleet.Outcome
	err := s.persist("ack", func(ctx context.Context) (err error) {
		out, err = s.registry.Engine.Apply(ctx, fleet.AckReceived{VM: s.vm, Epoch: s.epoch, Ack: a}, arrived)
		return err
	})
	switch {
	case errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrNotDelivered), errors.Is(err, fleet.ErrDamaged):
		s.refuse(KindAck, err)
		return nil
	case errors.Is(err, fleet.ErrSuperseded):
		return nil // the reader continues until the held stream ends
	case err != nil:
		return err
	}
	if out.Late {
		s.registry.metrics.lateAcks.Inc()
	}
	if len(out.Changes) > 0 { // otherwise the ack repeats an earlier one
		s.registry.Traces.Ack(s.stream, tracing.Acked{
			Command: &out.Command, Success: a.Success, Pool: s.pool, Epoch: s.epoch, At: began, Delivery: delivery,
		})
	}
	return nil
}

// deliveryOf returns the span of the delivery of a command on this session; empty if it is not
// known.
func (s *Session) deliveryOf(id fleet.CommandID) string {
	if d := s.traced.Load(); d != nil && d.command == id {
		return d.parent
	}
	return ""
}

// AckTruncated logs that an ack was too large and was truncated, unless there were too many.
func (s *Session) AckTruncated(id fleet.CommandID, size, limit int) {
	s.registry.limited(s.log, logAck, s.vm).
		Warn("ack truncated", logkey.Command, clip(string(id)), logkey.Size, size, keyLimit, limit)
}

// AckRepaired logs that a malformed ack could be read nevertheless, unless there were too many.
func (s *Session) AckRepaired(id fleet.CommandID, size int, fault error) {
	s.registry.limited(s.log, logAck, s.vm).
		Warn("malformed ack repaired", logkey.Command, clip(string(id)), logkey.Size, size, logkey.Error, fault)
}

// Event stores an event without its secrets; it is durable when Event returns. An event that violates a rule is
// refused, and the session continues. Event returns an error only when the session has ended.
func (s *Session) Event(e fleet.Event) error {
	arrived, done := s.registry.unstored.add(func() time.Time { return s.arrive(KindEvent) })
	defer done()
	if !s.admit(KindEvent, &e.Origin, arrived) {
		return nil
	}
	if err := e.Check(); err != nil {
		s.refuse(KindEvent, err)
		return nil
	}
	e.Body = fleet.WithoutSecretMembers(e.Body)
	s.noteLiveness(func(l fleet.Liveness) fleet.Liveness { return l.ReceiveEvent(e.Type) })
	err := s.persist("event", func(ctx context.Context) error {
		_, err := s.registry.Engine.Apply(ctx, fleet.EventReceived{Event: e}, arrived)
		return err
	})
	if err == nil {
		s.registry.limited(s.log, logEvent, s.vm).Info("event received", logkey.EventType, e.Type)
	}
	return err
}

// Heartbeat stores a heartbeat; it becomes durable together with others within 100 ms.
// Heartbeat blocks while too many wait. A heartbeat that violates a rule is refused, and the
// session continues. render returns the content of its file for the journal; it is called at
// most once, perhaps after Heartbeat has returned.
func (s *Session) Heartbeat(h fleet.Heartbeat, render func() ([]byte, error)) error {
	arrived := s.arriveHeartbeat()
	if errors.Is(s.Cause(), fleet.ErrSuperseded) || !s.admit(KindHeartbeat, &h.Origin, arrived) {
		return nil
	}
	if err := h.Check(); err != nil {
		s.refuse(KindHeartbeat, err)
		return nil
	}
	s.log.Debug("heartbeat received", keyStatus, h.Status)
	return s.registry.beats.add(s.stream, h, render)
}

// Reported logs an error that the agent reported, unless there were too many.
func (s *Session) Reported(code, message string) {
	s.arrive(KindError)
	s.registry.limited(s.log, logReported, s.vm).Warn("agent reported an error", logkey.Code, clip(code), keyMessage, clip(message))
}

// clip truncates a text of the agent for the log.
func clip(s string) string { return s[:min(len(s), 512)] }

// Refuse counts a message that violated a rule, and logs it unless there were too many.
func (s *Session) Refuse(kind MessageKind, why error) {
	s.arrive(kind)
	s.refuse(kind, why)
}

// refuse is Refuse for a message whose arrival is stamped already.
func (s *Session) refuse(kind MessageKind, why error) {
	s.registry.metrics.refused[kind].Inc()
	s.registry.limited(s.log, logRefused, s.vm).Warn("message refused", keyWhat, kind, logkey.Error, why)
}

// admit completes the origin of a report from this session. It refuses a report that names
// another VM.
func (s *Session) admit(kind MessageKind, o *fleet.Origin, arrived time.Time) bool {
	if o.VM != "" && o.VM != s.vm {
		s.refuse(kind, fleet.Invalid("vm_id", "must be empty or the VM of the stream"))
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
