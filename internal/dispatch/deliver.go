package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// How long a session waits before it looks for commands again, unless it is woken.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// lookAgain is behind the wake-ups, should one be lost.
	lookAgain = time.Minute
)

// showWithin is how long a register_runner that an earlier session was sent waits
// for the agent to say whether its runner is registered.
const showWithin = time.Second

// beginDeliveries makes the session deliver. fresh is whether a register_runner
// was made for it, which no session before it was sent.
func (s *Session) beginDeliveries(fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = time.AfterFunc(lookAgain, s.wakeUp)
	s.startDeliveries(func(ctx context.Context) {
		if !fresh {
			s.awaitRunner(ctx)
		}
		s.deliverDue(ctx)
	})
}

// wakeUp makes the session look for commands. No goroutine waits for it: most
// sessions are idle most of the time.
func (s *Session) wakeUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.look != nil && s.cancel == nil {
		s.startDeliveries(s.deliverDue)
		return
	}
	select { // for the deliveries that are under way or have not begun
	case s.wake <- struct{}{}:
	default:
	}
}

// startDeliveries starts deliver, unless the session is over. The caller holds
// s.mu and knows that nothing is delivered at the time.
func (s *Session) startDeliveries(deliver func(context.Context)) {
	if s.closed || s.cause != nil {
		return
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.stream)
	s.deliver.Go(func() { deliver(ctx) })
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

// awaitRunner puts off the repetition of a register_runner until the agent has
// said something of its runner: the ack and the proof of the first may have been
// lost with the session before. It returns after showWithin in any case.
func (s *Session) awaitRunner(ctx context.Context) {
	a := store.Attempt{Via: fleet.Stream, Epoch: s.epoch, Written: s.lastWritten(), At: s.d.Clock()}
	c, err := s.d.Store.Next(ctx, s.vm, a)
	if err != nil || c.Type != fleet.RegisterRunner || c.Attempts == 0 {
		return
	}
	select {
	case <-s.shown:
	case <-time.After(showWithin):
	case <-ctx.Done():
	}
}

// deliverDue hands the VM's commands to the agent, one at a time, until nothing
// is due or the session is over.
func (s *Session) deliverDue(ctx context.Context) {
	retry := firstRetry
	var tokenDue time.Time // before it no token is asked for, however often the session is woken
	for {
		untilToken := time.Until(tokenDue)
		err := s.deliverNext(ctx, untilToken > 0)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			retry = firstRetry
		case errors.Is(err, fleet.ErrNothingDue) && untilToken > 0:
			s.waitForWork(ctx, untilToken)
		case errors.Is(err, fleet.ErrNothingDue):
			if s.rest() {
				return
			}
			retry = firstRetry
		case errors.Is(err, fleet.ErrSuperseded):
			s.end(fleet.ErrSuperseded)
			return
		case errors.Is(err, errNotSent):
			s.log.Warn("command not sent", keyError, err)
			s.transport.Interrupt()
			return
		case errors.Is(err, fleet.ErrNoToken):
			tokenDue = time.Now().Add(s.nextToken(ctx))
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

// nextToken returns how long it is until a token is next asked for, also when the
// clock was set back.
func (s *Session) nextToken(ctx context.Context) time.Duration {
	v, err := s.d.Store.VM(ctx, s.vm)
	if err != nil {
		return lastRetry
	}
	now := s.d.Clock()
	return min(v.TokenWait.NextTry(now).Sub(now), lastRetry)
}

// errNotSent occurs when the stream does not take a message.
var errNotSent = errors.New("not sent")

func (s *Session) deliverNext(ctx context.Context, withoutToken bool) error {
	a := store.Attempt{Via: fleet.Stream, Epoch: s.epoch, Written: s.lastWritten(), WithoutToken: withoutToken}
	o, err := s.d.claim(ctx, s.vm, a)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // superseded since: the command is the newer session's
	}
	if now := s.d.Clock(); !now.Before(o.Command.ExpiresAt) {
		return s.d.Store.NotWritten(ctx, o.Command.ID, s.epoch, now)
	}
	if err := s.transport.Deliver(o.Command, o.Params); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	s.mu.Lock()
	s.written = o.Command.ID
	s.mu.Unlock()
	s.d.counters.delivered.Add(1)
	return nil
}
