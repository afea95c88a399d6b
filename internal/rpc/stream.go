package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/session"
)

// helloTimeout is how long a stream waits for the ConnectRequest that opens its session.
const helloTimeout = 30 * time.Second

// writeTimeout is how long an agent may take to accept a message.
const writeTimeout = 10 * time.Second

// StreamService serves the agents' streams. It is commandsconnect.CommandServiceHandler,
// except that messages are received as agentMessages.
type StreamService interface {
	StreamCommands(ctx context.Context, stream *bidiStream) error
}

type bidiStream = connect.BidiStream[agentMessage, commands.ControllerMessage]

// streamService implements StreamService.
type streamService struct {
	registry *session.Registry
	version  string
	log      *slog.Logger
	limiter  loglimit.Limiter
	unread   unreadStreams
}

// NewStreamService returns the handler of the agents' streams. version is the server version
// that agents receive.
func NewStreamService(r *session.Registry, version string, log *slog.Logger) StreamService {
	return &streamService{registry: r, version: version, log: log}
}

// newStreamHandler is like commandsconnect.NewCommandServiceHandler, for a StreamService.
func newStreamHandler(s StreamService, options ...connect.HandlerOption) (prefix string, handler http.Handler) {
	service := commands.File_miglet_commands_commands_proto.Services().ByName("CommandService")
	return "/" + commandsconnect.CommandServiceName + "/", connect.NewBidiStreamHandler(
		commandsconnect.CommandServiceStreamCommandsProcedure, s.StreamCommands,
		connect.WithSchema(service.Methods().ByName("StreamCommands")),
		connect.WithHandlerOptions(options...), connect.WithCodec(agentCodec{}))
}

// StreamCommands serves one agent until its stream ends. An invalid message is refused, and
// the stream continues; it ends on a message above maxStreamMessage, malformed framing or
// JSON, and a malformed ConnectRequest. A refused stream is held for a while before it ends,
// because agents reconnect at once.
func (s *streamService) StreamCommands(ctx context.Context, stream *bidiStream) error {
	a := newAgentStream(ctx, stream, s.version)
	a.unread = &s.unread
	defer a.hangUp()
	hello, err := a.hello(s.registry.Stopping())
	if err != nil {
		s.registry.Rejected(a.rejection(err, s.registry.Stopping()))
		return s.refuse(ctx, a, err)
	}
	session, err := s.registry.Open(ctx, hello, a)
	if invalid, ok := errors.AsType[*fleet.FieldError](err); ok {
		return s.reject(ctx, a, invalid)
	}
	if err != nil {
		return s.refuse(ctx, a, err)
	}
	err = converse(ctx, &messageReader{session: session}, a)
	if cause := session.Cause(); cause != nil {
		return cause
	}
	return s.refuse(ctx, a, err)
}

// reject makes the agent give up: it does not reconnect.
func (s *streamService) reject(ctx context.Context, a *agentStream, why error) error {
	// One limit for all agents: an invalid name identifies none, and they can change it.
	s.limiter.Limited(s.log, "agent rejected", "", time.Now()).WarnContext(ctx, "agent rejected", logkey.Peer, a.Peer(), logkey.Error, why)
	err := a.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Message: why.Error(), ServerVersion: s.version},
	}})
	s.hold(ctx, a)
	return err
}

// refuse ends a stream with err, after holding it. A stream that its agent has ended is not an
// error.
func (s *streamService) refuse(ctx context.Context, a *agentStream, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	s.hold(ctx, a)
	return err
}

// hold delays the end of a stream. Messages that still arrive are discarded: left unread, they
// would use up the flow-control window that all streams of a connection share.
func (s *streamService) hold(ctx context.Context, a *agentStream) {
	var reading sync.WaitGroup
	reading.Go(a.control.discard)
	s.registry.Hold(ctx)
	a.Interrupt()
	reading.Wait()
}

// converse reads the stream until it ends, and then closes the session, even after a panic.
func converse(ctx context.Context, r *messageReader, a *agentStream) error {
	ending := &session.EndError{Cause: session.EndInternal}
	defer func() { r.session.Close(ending) }() //nolint:contextcheck // a session has its stream's
	for {
		m, err := a.receive(r.session)
		received := err == nil
		if received {
			if err = r.apply(m); err == nil { //nolint:contextcheck // as above
				continue
			}
		}
		switch {
		case errors.Is(err, errThrottled):
			ending.Cause, ending.Err = session.EndThrottled, err
			return err
		case received && ctx.Err() == nil:
			ending.Err = err
			return err
		case received, errors.Is(err, errStreamOver):
			// The stream ended, or its session was superseded, while it was not read.
			if ctx.Err() != nil {
				a.Interrupt()
			}
			a.control.discard()
			err = a.endUnread(ctx, err)
		}
		ending = a.ending(err)
		return err
	}
}

// agentStream is one agent's stream. It implements session.Transport.
type agentStream struct {
	stream      *bidiStream
	version     string
	peer        string        // its address
	sendTimeout time.Duration // writeTimeout, except in tests
	connection  Connection    // nil if it is not known
	exchange    *exchange     // suspended: the stream has its own limits
	unread      *unreadStreams

	mu sync.Mutex
	// control is nil after the stream has ended: it must not be used after the handler has
	// returned.
	control *callControl
	unsent  *session.EndError // the first failure to send a message
}

func newAgentStream(ctx context.Context, stream *bidiStream, version string) *agentStream {
	a := &agentStream{
		stream: stream, version: version, peer: stream.Peer().Addr, sendTimeout: writeTimeout,
		connection: ConnectionOf(ctx), exchange: exchangeOf(ctx), control: streamControl(ctx),
	}
	a.exchange.suspend()
	return a
}

// Peer implements session.Transport.
func (a *agentStream) Peer() string { return a.peer }

// receive waits until the VM may report, and returns the next message.
func (a *agentStream) receive(session *session.Session) (*agentMessage, error) {
	if err := a.throttle(session); err != nil {
		return nil, err
	}
	a.control.await()
	return a.stream.Receive()
}

// hello returns the agent's ConnectRequest. It skips messages before it, because heartbeats
// can overtake it. It waits until helloTimeout has passed or the controller stops. A message
// that may be a malformed ConnectRequest is an error.
func (a *agentStream) hello(stopping <-chan struct{}) (fleet.Hello, error) {
	received := make(chan struct{})
	var limit sync.WaitGroup
	limit.Go(func() {
		select {
		case <-time.After(helloTimeout):
			a.Interrupt()
		case <-stopping:
			a.Interrupt()
		case <-received:
		}
	})
	defer limit.Wait()
	defer close(received)
	for {
		m, err := a.stream.Receive()
		if err != nil {
			return fleet.Hello{}, err
		}
		message, fault := m.decode()
		if err := unrecognised(m.wire, fault); err != nil {
			return fleet.Hello{}, fmt.Errorf("%w: %w", errMalformedHello, err)
		}
		if c := message.GetConnect(); fault == nil && c != nil {
			return fleet.Hello{
				VM: fleet.VMID(c.GetVmId()), Pool: c.GetPoolId(), Org: c.GetOrgId(), AgentVersion: clipVersion(c.GetVersion()),
			}, nil
		}
	}
}

// errMalformedHello occurs when a message that cannot be read may be the ConnectRequest.
var errMalformedHello = errors.New("malformed ConnectRequest")

// clipVersion truncates an agent's version. The version is only informative, so an invalid one
// does not reject the agent.
func clipVersion(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), fleet.MaxIDLength)], "")
}

// Accept implements session.Transport.
func (a *agentStream) Accept() error {
	return a.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true, Message: "connected", ServerVersion: a.version},
	}})
}

// Deliver implements session.Transport.
func (a *agentStream) Deliver(c fleet.Command, p fleet.Params) error {
	return a.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_Command{
		Command: &commands.Command{
			Id: string(c.ID), Type: c.Type, CreatedAt: c.CreatedAt.Unix(),
			StringParams: p.Strings, IntParams: p.Ints, BoolParams: p.Bools, StringArrayParams: p.List,
		},
	}})
}

// send sends a message. If that takes longer than sendTimeout, it terminates the stream and
// returns a write timeout.
func (a *agentStream) send(m *commands.ControllerMessage) error {
	late := time.AfterFunc(a.sendTimeout, func() {
		_ = a.fail(a.writeTimedOut())
		a.Abort()
		a.Interrupt()
	})
	err := a.stream.Send(m)
	if !late.Stop() {
		return a.fail(a.writeTimedOut())
	}
	if err != nil {
		return a.fail(&session.EndError{Cause: session.EndNotSent, Err: err})
	}
	return nil
}

func (a *agentStream) writeTimedOut() *session.EndError {
	return &session.EndError{Cause: session.EndWriteTimeout, Err: connect.NewError(connect.CodeDeadlineExceeded,
		fmt.Errorf("the agent did not accept a message within %s", a.sendTimeout))}
}

// fail records why a message could not be sent, and returns the first recorded reason.
func (a *agentStream) fail(why *session.EndError) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unsent == nil {
		a.unsent = why
	}
	return a.unsent
}

// Interrupt implements session.Transport: it makes a blocked Receive return.
func (a *agentStream) Interrupt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.control != nil {
		_ = a.control.SetReadDeadline(time.Unix(1, 0)) // fails only if there is nothing to interrupt
	}
}

// Abort implements session.Transport: it makes a blocked Deliver return.
func (a *agentStream) Abort() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.control != nil {
		_ = a.control.SetWriteDeadline(time.Unix(1, 0)) // as above
	}
}

func (a *agentStream) hangUp() {
	a.exchange.resume()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.control = nil
}
