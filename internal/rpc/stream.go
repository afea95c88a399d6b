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

// helloTimeout is how long a stream may go without the ConnectRequest that
// opens its session.
const helloTimeout = 30 * time.Second

// writeTimeout is how long an agent may take to take a message.
const writeTimeout = 10 * time.Second

// StreamService serves the agents' streams: commandsconnect.CommandServiceHandler, but for
// how messages are received.
type StreamService interface {
	StreamCommands(ctx context.Context, stream *agentStream) error
}

type agentStream = connect.BidiStream[agentMessage, commands.ControllerMessage]

// streamService is the agents' side of the controller.
type streamService struct {
	registry *session.Registry
	version  string
	log      *slog.Logger
	limiter  loglimit.Limiter
	unread   unreadStreams
}

// NewStreamService returns the handler of the agents' streams. version is what
// agents get as the version of what they are connected to.
func NewStreamService(r *session.Registry, version string, log *slog.Logger) StreamService {
	return &streamService{registry: r, version: version, log: log}
}

// newStreamHandler is commandsconnect.NewCommandServiceHandler for a StreamService.
func newStreamHandler(s StreamService, options ...connect.HandlerOption) (prefix string, handler http.Handler) {
	service := commands.File_miglet_commands_commands_proto.Services().ByName("CommandService")
	return "/" + commandsconnect.CommandServiceName + "/", connect.NewBidiStreamHandler(
		commandsconnect.CommandServiceStreamCommandsProcedure, s.StreamCommands,
		connect.WithSchema(service.Methods().ByName("StreamCommands")),
		connect.WithHandlerOptions(options...), connect.WithCodec(agentCodec{}))
}

// StreamCommands serves one agent until its stream ends. A message that cannot be
// taken is refused, and the stream goes on; it ends with one that is larger than can
// be read, framing or JSON that is malformed, and a malformed ConnectRequest. A
// stream that is refused is held for a while before it ends, since agents reconnect
// at once.
func (s *streamService) StreamCommands(ctx context.Context, stream *agentStream) error {
	l := newLine(ctx, stream, s.version)
	l.unread = &s.unread
	defer l.hangUp()
	hello, err := l.hello(s.registry.Stopping())
	if err != nil {
		return s.refuse(ctx, l, err)
	}
	session, err := s.registry.Open(ctx, hello, l)
	if invalid, ok := errors.AsType[*fleet.FieldError](err); ok {
		return s.reject(ctx, l, invalid)
	}
	if err != nil {
		return s.refuse(ctx, l, err)
	}
	err = converse(ctx, &messageReader{session: session}, l)
	if cause := session.Cause(); cause != nil {
		return cause
	}
	return s.refuse(ctx, l, err)
}

// reject makes the agent give up for good.
func (s *streamService) reject(ctx context.Context, l *line, why error) error {
	// All together: what they call themselves is not an id, and they can change it.
	s.limiter.Limited(s.log, "agent rejected", "", time.Now()).Warn("agent rejected", logkey.Error, why)
	err := l.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Message: why.Error(), ServerVersion: s.version},
	}})
	s.hold(ctx, l)
	return err
}

// refuse ends a stream with err, after holding it. One that its agent has ended
// is not an error.
func (s *streamService) refuse(ctx context.Context, l *line, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	s.hold(ctx, l)
	return err
}

// hold holds a stream whose end is certain. What its agent still sends is read
// and thrown away: left unread, it would use up the flow-control window that all
// streams of a connection share.
func (s *streamService) hold(ctx context.Context, l *line) {
	var reading sync.WaitGroup
	reading.Go(l.control.discard)
	s.registry.Hold(ctx)
	l.Interrupt()
	reading.Wait()
}

// converse reads the stream until it ends, and then closes the session, also
// when a message makes it panic.
func converse(ctx context.Context, r *messageReader, l *line) error {
	ending := &session.EndError{Cause: endInternal}
	defer func() { r.session.Close(ending) }() //nolint:contextcheck // a session has its stream's
	for {
		m, err := l.receive(r.session)
		received := err == nil
		if received {
			if err = r.take(m); err == nil { //nolint:contextcheck // as above
				continue
			}
		}
		switch {
		case errors.Is(err, errThrottled):
			ending.Cause, ending.Err = endThrottled, err
			return err
		case received && ctx.Err() == nil:
			ending.Err = err
			return err
		case received, errors.Is(err, errNotTaken):
			// The stream ended, or its session was superseded, while it was not read.
			if ctx.Err() != nil {
				l.Interrupt()
			}
			l.control.discard()
			err = l.over(ctx, err)
		}
		ending = l.ending(err)
		return err
	}
}

// line is one agent's stream as a session.Transport.
type line struct {
	stream     *agentStream
	version    string
	within     time.Duration // how long a message may take to be sent
	connection Connection    // nil when the server says nothing of it
	exchange   *exchange     // whose limits are replaced by those of the stream
	unread     *unreadStreams

	mu sync.Mutex
	// control is nil once the stream is over: it must not be used after the
	// handler has returned.
	control *callControl
	unsent  *session.EndError // why a message could not be sent; the first one
}

func newLine(ctx context.Context, stream *agentStream, version string) *line {
	l := &line{
		stream: stream, version: version, within: writeTimeout,
		connection: ConnectionOf(ctx), exchange: exchangeOf(ctx), control: streamControl(ctx),
	}
	l.exchange.suspend()
	return l
}

// receive returns the next message, once its VM may report.
func (l *line) receive(session *session.Session) (*agentMessage, error) {
	if err := l.throttle(session); err != nil {
		return nil, err
	}
	l.control.await()
	return l.stream.Receive()
}

// hello returns the agent's ConnectRequest. Heartbeats can overtake it: what
// comes before is skipped. The agent has until helloTimeout, or until the
// controller stops. A message that may be a malformed ConnectRequest is an error.
func (l *line) hello(stopping <-chan struct{}) (fleet.Hello, error) {
	said := make(chan struct{})
	var limit sync.WaitGroup
	limit.Go(func() {
		select {
		case <-time.After(helloTimeout):
			l.Interrupt()
		case <-stopping:
			l.Interrupt()
		case <-said:
		}
	})
	defer limit.Wait()
	defer close(said)
	for {
		m, err := l.stream.Receive()
		if err != nil {
			return fleet.Hello{}, err
		}
		if err := unrecognised(m); err != nil {
			return fleet.Hello{}, err
		}
		if c := m.message.GetConnect(); c != nil {
			return fleet.Hello{
				VM: fleet.VMID(c.GetVmId()), Pool: c.GetPoolId(), Org: c.GetOrgId(), AgentVersion: clipVersion(c.GetVersion()),
			}, nil
		}
	}
}

// clipVersion bounds what is kept of an agent's version. It is for people to
// read: no agent is turned away for it.
func clipVersion(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), fleet.MaxIDLength)], "")
}

// Accept implements session.Transport.
func (l *line) Accept() error {
	return l.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true, Message: "connected", ServerVersion: l.version},
	}})
}

// Deliver sends a command.
func (l *line) Deliver(c fleet.Command, p fleet.Params) error {
	return l.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_Command{
		Command: &commands.Command{
			Id: string(c.ID), Type: c.Type, CreatedAt: c.CreatedAt.Unix(),
			StringParams: p.Strings, IntParams: p.Ints, BoolParams: p.Bools, StringArrayParams: p.List,
		},
	}})
}

// send sends a message. If that takes longer than the agent may take, it
// terminates the stream, and its error says so.
func (l *line) send(m *commands.ControllerMessage) error {
	late := time.AfterFunc(l.within, func() {
		_ = l.fail(l.writeTimedOut())
		l.Abort()
		l.Interrupt()
	})
	err := l.stream.Send(m)
	if !late.Stop() {
		return l.fail(l.writeTimedOut())
	}
	if err != nil {
		return l.fail(&session.EndError{Cause: endNotSent, Err: err})
	}
	return nil
}

func (l *line) writeTimedOut() *session.EndError {
	return &session.EndError{Cause: endWriteTimeout, Err: connect.NewError(connect.CodeDeadlineExceeded,
		fmt.Errorf("the agent did not take a message within %s", l.within))}
}

// fail notes why a message could not be sent, and returns what was noted first.
func (l *line) fail(why *session.EndError) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsent == nil {
		l.unsent = why
	}
	return l.unsent
}

// Interrupt makes a Receive that is waiting return.
func (l *line) Interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control != nil {
		_ = l.control.SetReadDeadline(time.Unix(1, 0)) // fails only where there is nothing to end
	}
}

// Abort makes a Deliver that is waiting return.
func (l *line) Abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control != nil {
		_ = l.control.SetWriteDeadline(time.Unix(1, 0)) // as above
	}
}

func (l *line) hangUp() {
	l.exchange.resume()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.control = nil
}
