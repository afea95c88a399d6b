package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/dispatch"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// helloTimeout is how long a stream may go without the ConnectRequest that
// opens its session.
const helloTimeout = 30 * time.Second

type agentStream = connect.BidiStream[commands.MIGletMessage, commands.ControllerMessage]

// streamService is the agents' side of the controller.
type streamService struct {
	dispatch *dispatch.Dispatcher
	version  string
	log      *slog.Logger
}

var _ commandsconnect.CommandServiceHandler = (*streamService)(nil)

// NewStreamService returns the handler of the agents' streams. version is what
// agents are told they are connected to.
func NewStreamService(d *dispatch.Dispatcher, version string, log *slog.Logger) commandsconnect.CommandServiceHandler {
	return &streamService{dispatch: d, version: version, log: log}
}

// StreamCommands serves one agent until its stream ends. What is wrong with a
// message costs at most this stream. A stream that is refused is held for a
// while before it ends, since agents reconnect at once.
func (s *streamService) StreamCommands(ctx context.Context, stream *agentStream) error {
	l := &line{stream: stream, control: streamControl(ctx), version: s.version}
	defer l.hangUp()
	hello, err := l.hello(s.dispatch.Stopping())
	if err != nil {
		return s.refuse(ctx, err)
	}
	session, err := s.dispatch.Open(ctx, hello, l)
	if invalid, ok := errors.AsType[*fleet.FieldError](err); ok {
		return s.reject(ctx, l, invalid)
	}
	if err != nil {
		return s.refuse(ctx, err)
	}
	err = converse(session, l) //nolint:contextcheck // a session has its stream's
	if cause := session.Cause(); cause != nil {
		return cause
	}
	return s.refuse(ctx, err)
}

// reject tells the agent to give up for good.
func (s *streamService) reject(ctx context.Context, l *line, why error) error {
	s.log.Warn("agent rejected", callErrorKey, why)
	err := l.stream.Send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Message: why.Error(), ServerVersion: s.version},
	}})
	s.dispatch.Hold(ctx)
	return err
}

// refuse ends a stream with err, after holding it. One that its agent has ended
// is no error.
func (s *streamService) refuse(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	s.dispatch.Hold(ctx)
	return err
}

// converse reads the stream until it ends, and then closes the session, also
// when a message makes it panic.
func converse(s *dispatch.Session, l *line) error {
	defer s.Close()
	var heartbeats heartbeatReader
	control := l.control // until this returns
	for {
		control.await()
		m, err := l.stream.Receive()
		if err != nil {
			return err
		}
		if b := undecodedHeartbeat(m); b != nil {
			err = takeHeartbeat(s, &heartbeats, b)
		} else {
			err = take(s, m)
		}
		if err != nil {
			return err
		}
	}
}

func takeHeartbeat(s *dispatch.Session, r *heartbeatReader, b []byte) error {
	h, err := r.read(b)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return s.Heartbeat(h, func() ([]byte, error) {
		m, err := decodeHeartbeat(b)
		if err != nil {
			return nil, err
		}
		return protoJSON(m)
	})
}

func take(s *dispatch.Session, m *commands.MIGletMessage) error {
	switch m := m.GetMessage().(type) {
	case *commands.MIGletMessage_CommandAck:
		return s.Ack(ackFromProto(m.CommandAck))
	case *commands.MIGletMessage_Event:
		e, err := eventFromProto(m.Event)
		if err != nil {
			s.Refuse("event", err)
			return nil
		}
		return s.Event(e)
	case *commands.MIGletMessage_Heartbeat:
		return s.Heartbeat(heartbeatFromProto(m.Heartbeat), func() ([]byte, error) { return protoJSON(m.Heartbeat) })
	case *commands.MIGletMessage_Error:
		s.Reported(m.Error.GetCode(), m.Error.GetMessage())
	case *commands.MIGletMessage_Connect:
		s.Refuse("connect", fleet.Invalid("connect", "must be sent once"))
	default:
		s.Refuse("message", fleet.Invalid("message", "must be set"))
	}
	return nil
}

// line is one agent's stream as a dispatch.Transport.
type line struct {
	stream  *agentStream
	version string

	mu sync.Mutex
	// control is nil once the stream is over: it must not be used after the
	// handler has returned.
	control *callControl
}

// hello returns the agent's ConnectRequest. Heartbeats can overtake it: what
// comes before is skipped. The agent has until helloTimeout, or until the
// controller stops.
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
		if c := m.GetConnect(); c != nil {
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

// Accept tells the agent that its session is open.
func (l *line) Accept() error {
	return l.stream.Send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true, Message: "connected", ServerVersion: l.version},
	}})
}

// Deliver sends a command.
func (l *line) Deliver(c fleet.Command, p fleet.Params) error {
	return l.stream.Send(&commands.ControllerMessage{Message: &commands.ControllerMessage_Command{
		Command: &commands.Command{
			Id: string(c.ID), Type: c.Type, CreatedAt: c.CreatedAt.Unix(),
			StringParams: p.Strings, IntParams: p.Ints, BoolParams: p.Bools, StringArrayParams: p.List,
		},
	}})
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.control = nil
}
