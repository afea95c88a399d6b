package dispatch

import (
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// How long deliverLoop waits, unless it is woken.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// lookAgain is behind the wake-ups, should one be lost.
	lookAgain = time.Minute
)

// showWithin is how long a register_runner that an earlier session was sent waits
// for the agent to say whether its runner is registered.
const showWithin = time.Second

// awaitRunner puts off the repetition of a register_runner until the agent has
// said something of its runner: the ack and the proof of the first may have been
// lost with the session before. It returns after showWithin in any case.
func (s *Session) awaitRunner() {
	a := store.Attempt{Via: fleet.Stream, Epoch: s.epoch, At: s.d.Clock()}
	c, err := s.d.Store.Next(s.ctx, s.vm, a)
	if err != nil || c.Type != fleet.RegisterRunner || c.Attempts == 0 {
		return
	}
	select {
	case <-s.shown:
	case <-time.After(showWithin):
	case <-s.ctx.Done():
	}
}

// deliverLoop hands the VM's commands to the agent, one at a time, until the
// session is over.
func (s *Session) deliverLoop() {
	s.awaitRunner()
	retry := firstRetry
	for {
		err := s.deliverNext()
		wait := lookAgain
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil:
			retry = firstRetry
			continue
		case errors.Is(err, fleet.ErrNothingDue):
			retry = firstRetry
		case errors.Is(err, fleet.ErrSuperseded):
			s.end(fleet.ErrSuperseded)
			return
		case errors.Is(err, errNotSent):
			s.log.Warn("command not sent", keyError, err)
			s.transport.Interrupt()
			return
		default:
			if untold, ok := s.d.troubles.putOff.due(s.d.Clock()); ok {
				s.log.Warn("delivery put off", keyError, err, keyUntold, untold)
			}
			wait, retry = retry, min(2*retry, lastRetry)
		}
		select {
		case <-s.wake:
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
	}
}

// errNotSent occurs when the stream does not take a message.
var errNotSent = errors.New("not sent")

func (s *Session) deliverNext() error {
	o, err := s.d.claim(s.ctx, s.vm, store.Attempt{Via: fleet.Stream, Epoch: s.epoch})
	if err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return s.ctx.Err() // superseded since: the command is the newer session's
	}
	if err := s.transport.Deliver(o.Command, o.Params); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	s.d.counters.delivered.Add(1)
	s.log.Info("command delivered", keyCommand, o.Command.ID, keyCommandType, o.Command.Type,
		keyAttempt, o.Command.Attempts)
	return nil
}
