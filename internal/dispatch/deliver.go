package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// How long a session waits before it looks for commands again, unless it is woken.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// lookAgain makes up for a lost wake-up.
	lookAgain = time.Minute
)

// beginDeliveries makes the session deliver.
func (s *Session) beginDeliveries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = time.AfterFunc(lookAgain, func() { s.wakeUp(true) })
	s.startDeliveries()
}

// wakeUp makes the session look for commands, with askForToken also for those that
// wait for a token. No goroutine waits to be woken: most sessions are idle most of the
// time.
func (s *Session) wakeUp(askForToken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if askForToken {
		s.noToken = false
	}
	if s.look != nil && s.cancel == nil {
		s.startDeliveries()
		return
	}
	select { // for the deliveries that are under way or have not begun
	case s.wake <- struct{}{}:
	default:
	}
}

// startDeliveries starts deliverDue, unless the session is over. The caller holds
// s.mu and knows that nothing is delivered at the time.
func (s *Session) startDeliveries() {
	if s.closed || s.cause != nil {
		return
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.stream)
	s.deliver.Go(func() { s.deliverDue(ctx) })
}

// rest ends the deliveries, unless the session was woken since it looked.
func (s *Session) rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.wake:
		return false
	default:
	}
	s.cancel()
	s.cancel = nil
	if !s.closed {
		s.look.Reset(lookAgain)
	}
	return true
}

// deliverDue hands the VM's commands to the agent, one at a time, until nothing
// is due or the session is over.
func (s *Session) deliverDue(ctx context.Context) {
	retry := firstRetry
	for {
		err := s.deliverNext(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			retry = firstRetry
		case errors.Is(err, fleet.ErrNothingDue), errors.Is(err, fleet.ErrNoToken):
			if s.rest() {
				return
			}
			retry = firstRetry
		case errors.Is(err, fleet.ErrSuperseded):
			s.end(fleet.ErrSuperseded)
			return
		case errors.Is(err, fleet.ErrNotFound): // the VM's record was set aside: its next session makes a new one
			s.end(fleet.ErrDamaged)
			return
		case errors.Is(err, errNotSent):
			s.d.limited(s.log, troubleNotSent, s.vm).Warn("command not sent", keyError, err)
			s.transport.Interrupt()
			return
		default:
			s.d.limited(s.log, troubleDelivery, "").Warn("delivery postponed", keyError, err)
			s.waitForWork(ctx, retry)
			retry = min(2*retry, lastRetry)
		}
	}
}

// waitForWork returns when the session is woken, after d, or when it is over.
func (s *Session) waitForWork(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// withoutToken stops the session from asking for tokens until it is woken for that.
func (s *Session) withoutToken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noToken = true
}

// errNotSent occurs when the stream does not take a message.
var errNotSent = errors.New("not sent")

func (s *Session) deliverNext(ctx context.Context) error {
	s.mu.Lock()
	a := fleet.LeaseRequest{Via: fleet.Stream, Epoch: s.epoch, Written: s.written, WithoutToken: s.noToken}
	s.mu.Unlock()
	o, err := s.d.lease(ctx, s.vm, a, s.withoutToken)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // superseded since: the command is the newer session's
	}
	if now := s.d.Clock(); !now.Before(o.Command.ExpiresAt) {
		_, err := s.d.Engine.Apply(ctx, fleet.DeliveryFailed{VM: s.vm, Command: o.Command.ID, Epoch: s.epoch}, now)
		return err
	}
	s.unacked.Add(1)
	if err := s.transport.Deliver(o.Command, o.Params); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	s.mu.Lock()
	s.written = o.Command.ID
	s.mu.Unlock()
	s.d.counters.delivered.Add(1)
	return nil
}
