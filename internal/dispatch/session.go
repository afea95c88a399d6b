package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// abortAfter is how long a command that is under way when the session ends may
// still take to be sent.
const abortAfter = time.Second

// Transport is the stream below a session. The session makes one call of Accept
// and Deliver at a time. Neither may block forever: when the agent does not take
// a message in time, they return an error.
type Transport interface {
	// Accept sends the agent the ack that its session is open.
	Accept() error
	// Deliver sends a command. The params are those of the command with what is
	// filled in at delivery.
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

	stream  context.Context //nolint:containedctx // a session is one stream: until that is over
	hangUp  context.CancelFunc
	wake    chan struct{} // for deliverDue; holds one
	deliver sync.WaitGroup

	alive   liveness
	backlog backlog
	// unacked is how many acks may come that cost nothing; asked is whether the message
	// that is charged next is one of them, and the reader's own.
	unacked atomic.Int64
	asked   bool
	// withinLimits is whether the VM is known to report no more than it may; the reader's own.
	withinLimits bool

	superseded chan struct{} // closed when a newer session has taken its place

	mu      sync.Mutex
	written fleet.CommandID // the latest command that was written in full
	cause   error           // why it was ended from this side
	noToken bool            // none was available: it is not asked for again before its time
	timer   *time.Timer
	look    *time.Timer        // calls wakeUp; nil before beginDeliveries
	cancel  context.CancelFunc // ends the deliveries under way; nil when there are none
	closed  bool
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
	opened := d.receivedAt()
	out, err := d.Engine.ApplyLate(ctx, h.VM, "", func() (fleet.Input, time.Time) {
		return fleet.SessionOpened{Hello: h, Written: d.lastWritten(h.VM)}, opened
	})
	if err != nil {
		d.registry.leave()
		return nil, err
	}
	v := out.State.VM
	s := &Session{
		d: d, vm: h.VM, pool: h.Pool, org: h.Org, epoch: v.Epoch, transport: t,
		log: d.Log.With(keyVM, h.VM, keyEpoch, v.Epoch), wake: make(chan struct{}, 1),
		superseded: make(chan struct{}),
	}
	s.alive.opened(opened)
	s.stream, s.hangUp = context.WithCancel(ctx)
	d.limited(s.log, troubleConnected, s.vm).Info("agent connected", keyPool, h.Pool, keyOrg, h.Org, keyRegistration, v.Registration.State)
	if old := d.registry.add(s); old != nil {
		d.counters.superseded.Add(1)
		old.tellSuperseded(d.Clock())
		old.end(fleet.ErrSuperseded)
	}
	if err := t.Accept(); err != nil {
		s.Close(err) //nolint:contextcheck // a session has its stream's
		return nil, err
	}
	select {
	case <-d.stopping: // EndSessions may have looked before s was there
		s.end(fleet.ErrStopping)
	default:
	}
	s.beginDeliveries() //nolint:contextcheck // as above
	if d.outdated(v) {
		if err := d.retry(ctx, v); err != nil {
			d.limited(s.log, troubleDelivery, "").Warn("registration not tried again at once", keyError, err)
		}
	}
	return s, nil
}

// flapping is the age under which a session that is superseded may have a rival
// rather than a successor.
const flapping = 30 * time.Second

func (s *Session) tellSuperseded(now time.Time) {
	level, hint := slog.LevelInfo, "its agent is back before the old link was known to be down"
	if now.Sub(s.alive.current().OpenedAt) < flapping {
		level, hint = slog.LevelWarn, "it was young: if this goes on, two agents claim the VM"
	}
	s.d.limited(s.log, troubleSuperseded, s.vm).
		Log(s.stream, level, "session superseded by a newer one of the same VM", keyHint, hint)
}

// Epoch returns the session's number.
func (s *Session) Epoch() fleet.Epoch { return s.epoch }

// Cause returns why the session was ended from this side; nil if it was not.
func (s *Session) Cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// lastWritten returns the latest command that was written on the session in full;
// empty for none.
func (s *Session) lastWritten() fleet.CommandID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// end stops the deliveries of the session at once and its stream: after it was
// held when a newer session has taken its place, else at once.
func (s *Session) end(cause error) {
	stopping := errors.Is(cause, fleet.ErrStopping)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cause != nil && !stopping {
		return
	}
	if s.cause == nil {
		s.cause = cause
		if errors.Is(cause, fleet.ErrSuperseded) {
			close(s.superseded)
		}
	}
	if s.cancel != nil {
		s.cancel()
	}
	switch {
	case stopping: // what has been read is still taken
		s.transport.Interrupt()
	case errors.Is(cause, fleet.ErrSuperseded) && s.d.takeHold():
		s.timer = time.AfterFunc(s.d.Options.Hold, func() {
			s.d.releaseHold()
			s.cut()
		})
	default:
		s.cut()
	}
}

// cut ends the stream, also when its reader waits for the engine.
func (s *Session) cut() {
	s.hangUp()
	s.transport.Interrupt()
}

// EndError is why a stream ended.
type EndError struct {
	// Cause is a short constant text, for searching the log.
	Cause string
	// Err is the error behind it; nil when the cause says it all.
	Err error
}

// Error implements error.
func (e *EndError) Error() string {
	if e.Err == nil {
		return e.Cause
	}
	return e.Cause + ": " + e.Err.Error()
}

// Unwrap returns the error behind the end.
func (e *EndError) Unwrap() error { return e.Err }

// Close records the end of the session and waits for its deliveries to
// stop. The end of a session that was superseded touches nothing of the newer.
// cause is why the stream ended, for the log; an *EndError is best. What ended the
// session from this side takes precedence over it.
func (s *Session) Close(cause error) {
	s.hangUp() // and so the deliveries
	s.mu.Lock()
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.d.releaseHold()
	}
	if s.look != nil {
		s.look.Stop()
	}
	s.mu.Unlock()
	abort := time.AfterFunc(abortAfter, s.transport.Abort)
	s.deliver.Wait()
	abort.Stop()
	if s.d.registry.remove(s) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.stream), 5*time.Second)
		defer cancel()
		_ = s.d.recordEnd(ctx, ending{s.vm, s.epoch, s.lastWritten(), s.d.receivedAt()}) // if not now, then later
	}
	s.d.limited(s.log, troubleEnded, s.vm).Info("agent disconnected", endingAttrs(s.Cause(), cause)...)
	s.d.registry.leave()
}

// endingAttrs are what is logged of the end of a session: own is why it was
// ended from this side, and cause what its reader says.
func endingAttrs(own, cause error) []any {
	ending, ok := errors.AsType[*EndError](cause)
	switch {
	case errors.Is(own, fleet.ErrSuperseded):
		ending = &EndError{Cause: "superseded"}
	case errors.Is(own, fleet.ErrStopping):
		ending = &EndError{Cause: "controller stopping"}
	case errors.Is(own, fleet.ErrDamaged):
		ending = &EndError{Cause: "record damaged"}
	case errors.Is(own, fleet.ErrSilent):
		ending = &EndError{Cause: "silent", Err: own}
	case !ok:
		ending = &EndError{Cause: "unknown", Err: cause}
	}
	attrs := []any{keyCause, ending.Cause}
	if ending.Err != nil {
		attrs = append(attrs, keyError, ending.Err)
	}
	return attrs
}
