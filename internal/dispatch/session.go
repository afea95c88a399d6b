package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// How long a message may take to be sent to an agent that does not read.
const (
	// acceptWithin is for the answer that opens the session.
	acceptWithin = 5 * time.Second
	// abortAfter is for the command that is under way when the session ends.
	abortAfter = time.Second
)

// Transport is the stream below a session. The session makes one call of Accept
// and Deliver at a time.
type Transport interface {
	// Accept tells the agent that its session is open.
	Accept() error
	// Deliver sends a command. The params are those of the command with what is
	// put in while it is sent.
	Deliver(c fleet.Command, p fleet.Params) error
	// Interrupt makes the stream's reader return.
	Interrupt()
	// Abort makes an Accept or Deliver under way return.
	Abort()
}

// Session is one accepted stream. Its methods are for the one goroutine that
// reads the stream.
type Session struct {
	d         *Dispatcher
	vm        fleet.VMID
	pool, org string
	epoch     fleet.Epoch
	transport Transport
	log       *slog.Logger

	wake    chan struct{}   // holds one
	stream  context.Context //nolint:containedctx // a session is one stream: until that is over
	hangUp  context.CancelFunc
	ctx     context.Context //nolint:containedctx // as above: until deliveries end
	cancel  context.CancelFunc
	deliver sync.WaitGroup

	openedAt          time.Time
	shown             chan struct{} // closed when a heartbeat has shown the runner
	showing           sync.Once     // closes shown
	refused, reported trouble

	mu     sync.Mutex
	cause  error // why it was ended from this side
	timer  *time.Timer
	closed bool
}

// Open begins a session for the agent that said h: it is durable, supersedes
// the VM's session before, and gets the VM's commands. The caller reads the
// stream and calls Close when it ends. Open returns a *fleet.FieldError for an
// id that breaks the rule.
func (d *Dispatcher) Open(ctx context.Context, h fleet.Hello, t Transport) (*Session, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	if !d.registry.enter() {
		return nil, fleet.ErrStopping
	}
	v, err := d.Store.OpenSession(ctx, h, d.registerCommand(h.VM), d.receivedAt())
	if err != nil {
		d.registry.leave()
		return nil, err
	}
	s := &Session{
		d: d, vm: h.VM, pool: h.Pool, org: h.Org, epoch: v.Epoch, transport: t,
		log: d.Log.With(keyVM, h.VM, keyEpoch, v.Epoch), wake: make(chan struct{}, 1),
		shown: make(chan struct{}), openedAt: d.Clock(),
	}
	s.stream, s.hangUp = context.WithCancel(ctx)
	s.ctx, s.cancel = context.WithCancel(s.stream)
	s.log.Info("agent connected", keyPool, h.Pool, keyOrg, h.Org, keyRegistration, v.Registration.State)
	if old := d.registry.add(s); old != nil {
		d.counters.superseded.Add(1)
		old.tellSuperseded(d.Clock())
		old.end(fleet.ErrSuperseded)
	}
	abort := time.AfterFunc(acceptWithin, t.Abort)
	err = t.Accept()
	abort.Stop()
	if err != nil {
		s.Close() //nolint:contextcheck // a session has its stream's
		return nil, err
	}
	s.deliver.Go(s.deliverLoop)
	select {
	case <-d.stopping: // EndSessions may have looked before s was there
		s.end(fleet.ErrStopping)
	default:
	}
	return s, nil
}

// flapping is the age under which a session that is superseded may have a rival
// rather than a successor.
const flapping = 30 * time.Second

func (s *Session) tellSuperseded(now time.Time) {
	level, hint := slog.LevelInfo, "its agent is back before the old link was known to be down"
	if now.Sub(s.openedAt) < flapping {
		level, hint = slog.LevelWarn, "it was young: if this goes on, two agents claim the VM"
	}
	s.log.Log(s.stream, level, "session superseded by a newer one of the same VM", keyHint, hint)
}

// Epoch returns the session's number.
func (s *Session) Epoch() fleet.Epoch { return s.epoch }

// Cause returns why the session was ended from this side; nil if it was not.
func (s *Session) Cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// end stops the deliveries of the session at once and its stream: at once when
// the controller stops, else after it was held.
func (s *Session) end(cause error) {
	stopping := errors.Is(cause, fleet.ErrStopping)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cause != nil && !stopping {
		return
	}
	if s.cause == nil {
		s.cause = cause
	}
	s.cancel()
	switch {
	case stopping: // what has been read is still taken
		s.transport.Interrupt()
	case s.d.takeHold():
		s.timer = time.AfterFunc(s.d.Options.Hold, func() {
			s.d.releaseHold()
			s.cut()
		})
	default:
		s.cut()
	}
}

// cut ends the stream, also when its reader waits for the store.
func (s *Session) cut() {
	s.hangUp()
	s.transport.Interrupt()
}

// Close ends the session's part in the store and waits for its deliveries to
// stop. The end of a session that was superseded touches nothing of the newer.
func (s *Session) Close() {
	s.hangUp() // and so s.cancel
	s.mu.Lock()
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.d.releaseHold()
	}
	s.mu.Unlock()
	abort := time.AfterFunc(abortAfter, s.transport.Abort)
	s.deliver.Wait()
	abort.Stop()
	if s.d.registry.remove(s) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.stream), 5*time.Second)
		defer cancel()
		_ = s.d.recordEnd(ctx, ending{s.vm, s.epoch, s.d.receivedAt()}) // if not now, then later
	}
	s.log.Info("agent disconnected")
	s.d.registry.leave()
}

// show notes that a heartbeat which shows the runner is stored.
func (s *Session) show() { s.showing.Do(func() { close(s.shown) }) }

func (s *Session) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

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
	a := store.Attempt{Via: fleet.Stream, Epoch: s.epoch, At: s.d.Clock()}
	o, err := s.d.claim(s.ctx, s.vm, a)
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
	s.log.Info("command delivered", keyCommand, o.Command.ID, keyType, o.Command.Type,
		keyAttempt, o.Command.Attempts)
	return nil
}

// persist writes what an agent said until the store takes it or the stream is
// over: agents say nothing twice. The stream is not read meanwhile. A write that
// has begun goes on when the stream ends.
func (s *Session) persist(what string, write func(context.Context) error) error {
	ctx := context.WithoutCancel(s.stream)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := write(ctx)
		if !errors.Is(err, fleet.ErrUnavailable) {
			return err
		}
		if untold, ok := s.d.troubles.held.due(s.d.Clock()); ok {
			s.log.Warn("store unavailable, holding back", keyWhat, what, keyError, err, keyUntold, untold)
		}
		select {
		case <-time.After(wait):
			continue
		case <-s.stream.Done():
		case <-s.d.stopping:
		}
		s.log.Error("report lost", keyWhat, what, keyError, err)
		return err
	}
}

// Ack takes the agent's answer to a command; it is durable when Ack returns. An
// answer to nothing that this VM was sent is refused, and the session goes on.
// It returns an error only when the session is over.
func (s *Session) Ack(a fleet.Ack) error {
	if err := fleet.CheckID("command_ack.command_id", string(a.CommandID)); err != nil {
		s.Refuse("ack", err)
		return nil
	}
	var c fleet.Command
	var late bool
	err := s.persist("ack", func(ctx context.Context) (err error) {
		c, late, err = s.d.Store.Ack(ctx, s.vm, s.epoch, a, s.d.receivedAt())
		return err
	})
	switch {
	case errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrNotDelivered):
		s.Refuse("ack", err)
		return nil
	case errors.Is(err, fleet.ErrSuperseded):
		return nil // the reader goes on until the held stream is ended
	case err != nil:
		return err
	}
	if late {
		s.d.counters.lateAcks.Add(1)
	}
	s.log.Info("command acked", keyCommand, c.ID, keyType, c.Type, keySuccess, a.Success, keyState, c.State, keyLate, late)
	return nil
}

// Event takes an event; it is durable when Event returns. One that breaks a
// rule is refused, and the session goes on. It returns an error only when the
// session is over.
func (s *Session) Event(e fleet.Event) error {
	if !s.admit("event", &e.Origin) {
		return nil
	}
	if err := e.Check(); err != nil {
		s.Refuse("event", err)
		return nil
	}
	err := s.persist("event", func(ctx context.Context) error {
		_, _, err := s.d.Store.RecordEvent(ctx, e, s.d.registerCommand(s.vm))
		return err
	})
	if err == nil {
		s.log.Info("event received", keyType, e.Type)
	}
	return err
}

// Heartbeat takes a heartbeat, to be made durable with others within 100 ms; it
// blocks while too many wait. One that breaks a rule is refused, and the
// session goes on. render makes its file for the journal and is called, if at
// all, before Heartbeat returns.
func (s *Session) Heartbeat(h fleet.Heartbeat, render func() ([]byte, error)) error {
	if errors.Is(s.Cause(), fleet.ErrSuperseded) || !s.admit("heartbeat", &h.Origin) {
		return nil
	}
	if err := h.Check(); err != nil {
		s.Refuse("heartbeat", err)
		return nil
	}
	s.log.Debug("heartbeat received", keyStatus, h.Status)
	return s.d.beats.add(s.stream, h, render)
}

// Reported notes an error the agent reported. An agent that reports many has
// some of them logged.
func (s *Session) Reported(code, message string) {
	if untold, ok := s.reported.due(s.d.Clock()); ok {
		s.log.Warn("agent reported an error", keyCode, clip(code), keyMessage, clip(message), keyUntold, untold)
	}
}

// clip bounds what an agent can put on a log line.
func clip(s string) string { return s[:min(len(s), 512)] }

// Refuse counts a message that broke a rule. Of many, some are logged.
func (s *Session) Refuse(what string, why error) {
	s.d.counters.refused.Add(1)
	if untold, ok := s.refused.due(s.d.Clock()); ok {
		s.log.Warn("message refused", keyWhat, what, keyError, why, keyUntold, untold)
	}
}

// admit makes a report one of this session's. It refuses one that names another
// VM.
func (s *Session) admit(what string, o *fleet.Origin) bool {
	if o.VM != "" && o.VM != s.vm {
		s.Refuse(what, fleet.Invalid("vm_id", "must be empty or the VM of the stream"))
		return false
	}
	o.VM, o.Via, o.Epoch, o.ReceivedAt = s.vm, fleet.Stream, s.epoch, s.d.receivedAt()
	if o.Pool == "" {
		o.Pool = s.pool
	}
	if o.Org == "" {
		o.Org = s.org
	}
	return true
}
