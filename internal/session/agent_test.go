package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// agent is a stream and the goroutine that reads it.
type agent struct {
	*system
	session    *Session
	disconnect context.CancelFunc        // ends the stream from the agent's side
	messages   chan func(*Session) error // messages of the agent, for the reader to apply
	delivered  chan Lease                // the commands that were sent
	ended      chan struct{}             // closed when the reader has closed the session
	stream     *transport
}

// transport is the fake stream.
type transport struct {
	got         chan Lease
	onAccept    func() error
	onDeliver   func() error
	interrupted chan struct{}
	aborted     chan struct{}
	once        [2]sync.Once
}

func newTransport() *transport {
	return &transport{
		got: make(chan Lease, 100), interrupted: make(chan struct{}), aborted: make(chan struct{}),
		onAccept: func() error { return nil }, onDeliver: func() error { return nil },
	}
}

// newBlockedTransport returns a stream whose agent does not read: Deliver blocks until Abort.
func newBlockedTransport() *transport {
	t := newTransport()
	t.onDeliver = func() error {
		<-t.aborted
		return errors.New("aborted")
	}
	return t
}

func (t *transport) Accept() error { return t.onAccept() }

// Peer returns a different address for each transport.
func (t *transport) Peer() string { return fmt.Sprintf("[2001:db8::%p]:7", t) }

func (t *transport) Deliver(c fleet.Command, p fleet.Params) error {
	if err := t.onDeliver(); err != nil {
		return err
	}
	t.got <- Lease{Command: c, Params: p}
	return nil
}

func (t *transport) Interrupt() { t.once[0].Do(func() { close(t.interrupted) }) }
func (t *transport) Abort()     { t.once[1].Do(func() { close(t.aborted) }) }

// isInterrupted reports whether Interrupt was called.
func (t *transport) isInterrupted() bool {
	select {
	case <-t.interrupted:
		return true
	default:
		return false
	}
}

// connect opens a session and reads it until its end.
func (s *system) connect(vm fleet.VMID) *agent {
	s.Helper()
	return s.connectOn(vm, newTransport())
}

func (s *system) connectOn(vm fleet.VMID, t *transport) *agent {
	s.Helper()
	ctx, leave := context.WithCancel(s.Context())
	session, err := s.Open(ctx, fleet.Hello{VM: vm, Pool: "pool", Org: "org"}, t)
	require.NoError(s, err)
	a := &agent{
		system: s, session: session, disconnect: leave, messages: make(chan func(*Session) error),
		delivered: t.got, ended: make(chan struct{}), stream: t,
	}
	go a.read(ctx)
	s.Cleanup(func() {
		leave()
		<-a.ended
	})
	return a
}

func (a *agent) read(ctx context.Context) {
	defer close(a.ended)
	defer a.session.Close(nil) //nolint:contextcheck // a session has its stream's
	for {
		select {
		case say := <-a.messages:
			if say(a.session) != nil {
				return
			}
		case <-a.stream.interrupted:
			return
		case <-ctx.Done():
			return
		}
	}
}

// do makes the reader apply a message and returns the result, or an error if the stream has
// ended.
func (a *agent) do(message func(*Session) error) error {
	result := make(chan error, 1)
	select {
	case a.messages <- func(s *Session) error {
		err := message(s)
		result <- err
		return err
	}:
		return <-result
	case <-a.ended:
		return errors.New("the stream is over")
	}
}

func (a *agent) ack(id fleet.CommandID, success bool) {
	a.Helper()
	require.NoError(a, a.do(func(s *Session) error { return s.Ack(fleet.Ack{CommandID: id, Success: success}) }))
}

func (a *agent) event(kind string) {
	a.Helper()
	require.NoError(a, a.do(eventOf(kind)))
}

func (a *agent) beat(status string) {
	a.Helper()
	require.NoError(a, a.do(beatOf(status)))
}

// sendSignOfLife sends a heartbeat after a delivery, so that the agent is known to be alive.
func (a *agent) sendSignOfLife() {
	a.Helper()
	time.Sleep(time.Millisecond) // fake clock
	a.beat("idle")
}

// flood sends n heartbeats.
func (a *agent) flood(n int) {
	a.Helper()
	require.NoError(a, a.do(func(s *Session) error {
		for range n {
			if err := beatOf("idle")(s); err != nil {
				return err
			}
		}
		return nil
	}))
}

// beatRunner sends a heartbeat that shows whether the runner is registered.
func (a *agent) beatRunner(configured bool) {
	a.Helper()
	require.NoError(a, a.do(func(s *Session) error {
		return s.Heartbeat(fleet.Heartbeat{Status: "ready", Runner: &fleet.Runner{Configured: configured}}, noFile)
	}))
}

func eventOf(kind string) func(*Session) error {
	return func(s *Session) error { return s.Event(fleet.Event{Type: kind, Body: json.RawMessage(`{}`)}) }
}

func beatOf(status string) func(*Session) error {
	return func(s *Session) error { return s.Heartbeat(fleet.Heartbeat{Status: status}, noFile) }
}

func noFile() ([]byte, error) { return []byte(`{}`), nil }

// next returns the next command that was sent, and acks it if there is an answer.
func (a *agent) next(answer ...bool) fleet.Command {
	a.Helper()
	c := (<-a.delivered).Command
	for _, success := range answer {
		a.ack(c.ID, success)
	}
	return c
}

// requireNothing requires that nothing was sent and nothing will be.
func (a *agent) requireNothing() {
	a.Helper()
	synctest.Wait()
	require.Empty(a, a.delivered)
}

// registered connects a VM and acks its register_runner.
func (s *system) registered(vm fleet.VMID) *agent {
	s.Helper()
	a := s.connect(vm)
	require.Equal(s, fleet.RegisterRunner, a.next(true).Type)
	return a
}

// quit ends the stream from the agent's side and waits for its session to end.
func (a *agent) quit() {
	a.disconnect()
	<-a.ended
}
