package session

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// abortAfter is how long a command that is being sent when the session ends may still take.
const abortAfter = time.Second

// Transport is the stream below a session, which makes one call of Accept or Deliver at a
// time. Neither blocks forever: they return an error when the agent does not accept a
// message in time.
type Transport interface {
	// Accept sends the agent the ack that its session is open.
	Accept() error
	// Deliver sends a command. p are its params, including those that are filled in at
	// delivery.
	Deliver(c fleet.Command, p fleet.Params) error
	// Peer returns the address that the stream comes from, for the log.
	Peer() string
	// Interrupt makes the stream's reader return.
	Interrupt()
	// Abort makes a pending Accept or Deliver return.
	Abort()
}

// Session is one accepted stream. Its methods are for the one goroutine that reads the
// stream.
type Session struct {
	registry  *Registry
	vm        fleet.VMID
	pool, org string
	epoch     fleet.Epoch
	transport Transport
	log       *slog.Logger

	stream  context.Context //nolint:containedctx // a session lives exactly as long as its stream
	hangUp  context.CancelFunc
	wake    chan struct{} // for deliverDue; holds one
	deliver sync.WaitGroup

	liveness fleet.Liveness // guarded by registry.times.mu
	backlog  backlog
	// unacked is how many further acks are not charged. asked, which only the reader uses, is
	// whether the next message to be charged is one of them.
	unacked atomic.Int64
	asked   bool
	// withinLimits is whether the VM is known to report no more than it may; only the reader
	// uses it.
	withinLimits bool

	superseded chan struct{}                   // closed when a newer session supersedes this one
	written    atomic.Pointer[fleet.CommandID] // the latest command that was written in full
	live       prometheus.Gauge                // counts the newest sessions of its pool's VMs
	traced     atomic.Pointer[delivery]        // the latest delivery with a span; nil if there is none

	mu      sync.Mutex
	cause   error              // why the controller ended it; nil while it has not
	noToken bool               // no token was available: wakeUp says when to ask again
	held    *time.Timer        // cuts the stream once it was held; nil unless superseded
	look    *time.Timer        // calls wakeUp; nil before beginDeliveries
	cancel  context.CancelFunc // ends the deliveries under way; nil when there are none
	closed  bool
}

// delivery is a delivery with a span.
type delivery struct {
	command fleet.CommandID
	parent  string // tracing.Parent of the span
}

// Open opens a session for the agent that sent h. The session is durable, supersedes the
// VM's previous one, and is sent the VM's commands. The caller reads the stream and calls
// Close when it ends. Open returns a *fleet.FieldError for an id that violates a rule. When
// many sessions are being opened, it waits for its turn.
func (r *Registry) Open(ctx context.Context, h fleet.Hello, t Transport) (*Session, error) {
	if err := h.Check(); err != nil {
		return nil, r.rejected(err)
	}
	if !r.sessions.enter() {
		return nil, r.rejected(fleet.ErrStopping)
	}
	opened, out, err := r.admit(ctx, h)
	if err != nil {
		r.sessions.leave()
		return nil, r.rejected(err)
	}
	s := r.newSession(ctx, h, t, out.State.VM, opened)
	if old := r.sessions.add(s); old != nil {
		old.noteSuperseded(r.Clock())
		old.end(fleet.ErrSuperseded)
	}
	if err := t.Accept(); err != nil {
		s.Close(err) //nolint:contextcheck // a session has the context of its stream
		return nil, err
	}
	select {
	case <-r.stopping: // EndSessions may have looked before s was added
		s.end(fleet.ErrStopping)
	default:
	}
	s.beginDeliveries() //nolint:contextcheck // as above
	r.retryOutdated(ctx, s.log, out.State.VM)
	return s, nil
}

// admit makes a session durable, in its turn. It returns when it was opened.
func (r *Registry) admit(ctx context.Context, h fleet.Hello) (opened time.Time, out fleet.Outcome, err error) {
	leave, err := r.admission.enter(ctx)
	if err != nil {
		return opened, out, err
	}
	defer leave()
	opened = r.receivedAt()
	out, err = r.Engine.ApplyLate(ctx, h.VM, "", func() (fleet.Input, time.Time) {
		return fleet.SessionOpened{Hello: h, Written: r.lastWritten(h.VM)}, opened
	})
	return opened, out, err
}

func (r *Registry) newSession(ctx context.Context, h fleet.Hello, t Transport, v fleet.VM, opened time.Time) *Session {
	s := &Session{
		registry: r, vm: h.VM, pool: h.Pool, org: h.Org, epoch: v.Epoch, transport: t,
		log: r.Log.With(logkey.VM, h.VM, logkey.Epoch, v.Epoch, logkey.Session, newSessionID()), wake: make(chan struct{}, 1),
		superseded: make(chan struct{}), live: r.metrics.sessionOpened(h.Pool, v.Epoch),
		liveness: fleet.Liveness{OpenedAt: opened, LastMessageAt: opened},
	}
	s.stream, s.hangUp = context.WithCancel(ctx)
	// This line and those of the end also have the id of the stream's request.
	r.limited(s.log, logConnected, s.vm).InfoContext(ctx, "agent connected",
		keyPool, h.Pool, keyOrg, h.Org, keyRegistration, v.Registration.State, logkey.Peer, t.Peer())
	return s
}

// newSessionID returns the id of a session in the log. Unlike the epoch it is unique in the
// fleet, and stays so when the database is restored from a backup.
func newSessionID() string { return "ses-" + strings.ToLower(rand.Text()[:sessionIDLength]) }

// sessionIDLength is 80 bits in base32.
const sessionIDLength = 16

// flapping is the age below which a superseded session may have a rival rather than a
// successor.
const flapping = 30 * time.Second

// noteSuperseded counts and logs that a newer session superseded this one.
func (s *Session) noteSuperseded(now time.Time) {
	count := s.registry.metrics.superseded.older
	level, hint := slog.LevelInfo, "its agent reconnected before the old link was known to be down"
	if now.Sub(s.currentLiveness().OpenedAt) < flapping {
		count = s.registry.metrics.superseded.young
		level, hint = slog.LevelWarn, "it was only seconds old: if this repeats, two agents claim the VM"
	}
	count.Inc()
	s.registry.limited(s.log, logSuperseded, s.vm).
		Log(s.stream, level, "session superseded by a newer one of the same VM", logkey.Peer, s.transport.Peer(), logkey.Hint, hint)
}

// Epoch returns the session's number.
func (s *Session) Epoch() fleet.Epoch { return s.epoch }

// Cause returns why the controller ended the session; nil if it has not.
func (s *Session) Cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// lastWritten returns the latest command that was written on the session in full; empty if
// there is none. It takes no lock.
func (s *Session) lastWritten() fleet.CommandID {
	if id := s.written.Load(); id != nil {
		return *id
	}
	return ""
}

// end stops the deliveries of the session at once. Its stream ends at once too, unless a
// newer session has superseded it: then it is held first.
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
	case stopping: // messages that were read are still applied
		s.transport.Interrupt()
	case errors.Is(cause, fleet.ErrSuperseded) && s.registry.takeHold():
		s.held = time.AfterFunc(s.registry.HoldTime, func() {
			s.registry.releaseHold()
			s.cut()
		})
	default:
		s.cut()
	}
}

// cut ends the stream, even while its reader waits for the engine.
func (s *Session) cut() {
	s.hangUp()
	s.transport.Interrupt()
}

// Close records the end of the session and waits until its deliveries have stopped. It
// changes nothing of a newer session of the VM. cause is why the stream ended, for the log,
// preferably an *EndError; if the controller ended the session, its reason takes precedence.
func (s *Session) Close(cause error) {
	r := s.registry
	s.hangUp() // which ends the deliveries too
	s.mu.Lock()
	s.closed = true
	if s.held != nil && s.held.Stop() {
		r.releaseHold()
	}
	if s.look != nil {
		s.look.Stop()
	}
	s.mu.Unlock()
	abort := time.AfterFunc(abortAfter, s.transport.Abort)
	s.deliver.Wait()
	abort.Stop()
	if r.sessions.remove(s) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.stream), 5*time.Second)
		defer cancel()
		_ = r.recordEnd(ctx, ending{s.vm, s.epoch, s.lastWritten(), r.receivedAt()}) // RecordEnds retries it
	}
	end := endOf(s.Cause(), cause)
	r.metrics.ended[end.Cause].Inc()
	r.limited(s.log, logDisconnected, s.vm).InfoContext(s.stream, "agent disconnected", end.attrs()...)
	r.sessions.leave()
}
