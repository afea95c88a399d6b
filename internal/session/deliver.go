package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// How long a session waits before it looks for due commands again, unless it is woken.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// lookAgain bounds the effect of a lost wake-up.
	lookAgain = time.Minute
)

// beginDeliveries makes the session deliver.
func (s *Session) beginDeliveries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = time.AfterFunc(lookAgain, func() { s.wakeUp(true) })
	s.startDeliveries()
}

// wakeUp makes the session look for due commands; with askForToken, also for those that wait
// for a token. It starts a goroutine when there is none: most sessions are idle most of the
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
	select { // deliverDue is running, or beginDeliveries will look
	case s.wake <- struct{}{}:
	default:
	}
}

// startDeliveries starts deliverDue, unless the session has ended. The caller holds s.mu and
// knows that deliverDue is not running.
func (s *Session) startDeliveries() {
	if s.closed || s.cause != nil {
		return
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.stream)
	s.deliver.Go(func() { s.deliverDue(ctx) })
}

// rest ends deliverDue, unless the session was woken since it looked.
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

// deliverDue delivers the VM's commands, one at a time, until nothing is due or the session
// has ended.
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
		case errors.Is(err, fleet.ErrNotFound): // the VM's record was set aside: its next session creates a new one
			s.end(fleet.ErrDamaged)
			return
		case errors.Is(err, errNotSent):
			s.registry.limited(s.log, logNotSent, s.vm).Warn("command not sent", logkey.Error, err)
			s.transport.Interrupt()
			return
		default:
			s.registry.limited(s.log, logDelivery, "").Warn("delivery postponed", logkey.Error, err)
			if !s.waitForWork(ctx, retry) {
				retry = min(2*retry, lastRetry)
			}
		}
	}
}

// waitForWork returns true when the session is woken, and false after d or when ctx is done.
func (s *Session) waitForWork(ctx context.Context, d time.Duration) (woken bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.wake:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// withoutToken stops the session from asking for tokens until wakeUp is called for them.
func (s *Session) withoutToken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noToken = true
}

// errNotSent occurs when a message cannot be written to the stream.
var errNotSent = errors.New("not sent")

// deliverNext leases the next command and writes it to the stream.
func (s *Session) deliverNext(ctx context.Context) error {
	s.mu.Lock()
	noToken := s.noToken
	s.mu.Unlock()
	request := fleet.LeaseRequest{Via: fleet.Stream, Epoch: s.epoch, Written: s.lastWritten(), WithoutToken: noToken}
	lease, err := s.registry.lease(ctx, s.vm, request, s.withoutToken)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // superseded meanwhile: the command is the newer session's
	}
	if now := s.registry.Clock(); !now.Before(lease.Command.ExpiresAt) {
		_, err := s.registry.Engine.Apply(ctx, fleet.DeliveryFailed{VM: s.vm, Command: lease.Command.ID, Epoch: s.epoch}, now)
		return err
	}
	s.unacked.Add(1)
	if err := s.send(ctx, lease); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	id := lease.Command.ID // not a pointer into the lease, which holds the params
	s.written.Store(&id)
	s.registry.delivered.Add(1)
	return nil
}

// send writes a leased command to the stream, in a span.
func (s *Session) send(ctx context.Context, lease Lease) error {
	span := s.registry.Traces.Deliver(ctx, &lease.Command, s.pool)
	if parent := span.Parent(); parent != "" {
		s.traced.Store(&delivery{lease.Command.ID, parent}) // the ack can arrive before Deliver returns
	}
	err := s.transport.Deliver(lease.Command, lease.Params)
	span.End(err)
	return err
}
