package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// streamMethod is the method that agents in the field call.
const streamMethod = "/miglet.commands.CommandService/StreamCommands"

const agentVersion = "1.2.3"

// newConn connects as agents in the field do: in plaintext, with keepalive pings even
// without streams.
func newConn(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}))
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := newConn(addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// stream is one stream, read by a goroutine that ends with it.
type stream struct {
	rpc   grpc.ClientStream
	reset context.CancelFunc
	inbox chan *commands.ControllerMessage // closed at the end
	err   error                            // why it ended; set before inbox is closed
	// endedAt is when it ended; set before inbox is closed.
	endedAt time.Time
	// patience is how long next waits.
	patience time.Duration
}

func openStream(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	rpc, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{rpc: rpc, reset: cancel, inbox: make(chan *commands.ControllerMessage, 16), patience: patience}
	go s.read(ctx)
	return s, nil
}

func (s *stream) read(ctx context.Context) {
	defer close(s.inbox)
	defer func() { s.endedAt = time.Now() }()
	for {
		m := new(commands.ControllerMessage)
		if s.err = s.rpc.RecvMsg(m); s.err != nil {
			return
		}
		select {
		case s.inbox <- m:
		case <-ctx.Done():
			s.err = ctx.Err()
			return
		}
	}
}

// errEnded occurs when a stream ends while a message is expected.
var errEnded = errors.New("the stream has ended")

// next returns the next message.
func (s *stream) next() (*commands.ControllerMessage, error) {
	select {
	case m, ok := <-s.inbox:
		if !ok {
			return nil, fmt.Errorf("%w: %w", errEnded, s.err)
		}
		return m, nil
	case <-time.After(s.patience):
		return nil, errors.New("nothing arrived")
	}
}

// connect opens the session and returns the answer.
func (s *stream) connect(hello *commands.ConnectRequest) (*commands.ConnectAck, error) {
	err := s.rpc.SendMsg(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: hello}})
	if err != nil {
		return nil, err
	}
	m, err := s.next()
	if err == nil && m.GetConnectAck() == nil {
		err = fmt.Errorf("expected a ConnectAck, got %v", m)
	}
	return m.GetConnectAck(), err
}

// command returns the next message, which must be a command.
func (s *stream) command() (*commands.Command, error) {
	m, err := s.next()
	if err == nil && m.GetCommand() == nil {
		err = fmt.Errorf("expected a command, got %v", m)
	}
	return m.GetCommand(), err
}

func (s *stream) ack(a *commands.CommandAck) error {
	return s.rpc.SendMsg(&commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: a}})
}

func (s *stream) event(e *commands.EventNotification) error {
	return s.rpc.SendMsg(&commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: e}})
}

// end resets the stream and waits for its reader.
func (s *stream) end() {
	s.reset()
	for range s.inbox {
	}
}

// agent is the agent of a VM with one stream.
type agent struct {
	*stream
	t    *testing.T
	vm   string
	conn *grpc.ClientConn
}

// openOver opens a stream without sending anything.
func openOver(t *testing.T, conn *grpc.ClientConn, vm string, opts ...grpc.CallOption) *agent {
	t.Helper()
	s, err := openStream(t.Context(), conn, opts...)
	require.NoError(t, err)
	t.Cleanup(s.end)
	return &agent{stream: s, t: t, vm: vm, conn: conn}
}

// connectOver opens a session.
func connectOver(t *testing.T, conn *grpc.ClientConn, vm string) *agent {
	t.Helper()
	a := openOver(t, conn, vm)
	a.hello()
	return a
}

// connect opens a session on a connection of its own to the gRPC address.
func (c *controller) connect(t *testing.T, vm string) *agent {
	t.Helper()
	return connectOver(t, dial(t, c.grpcAddr), vm)
}

// connectRegistered opens the first session of a VM and registers its runner.
func (c *controller) connectRegistered(t *testing.T, vm string) *agent {
	t.Helper()
	a := c.connect(t, vm)
	a.register()
	c.awaitVM(t, vm, "registered", isRegistered)
	return a
}

// hello opens the session.
func (a *agent) hello() {
	a.t.Helper()
	ack, err := a.stream.connect(&commands.ConnectRequest{
		VmId: a.vm, PoolId: "pool-a", OrgId: "org-a", Version: agentVersion,
	})
	require.NoError(a.t, err, a.vm)
	require.True(a.t, ack.GetAccepted(), ack.GetMessage())
	require.NotEmpty(a.t, ack.GetServerVersion())
}

// send sends a message.
func (a *agent) send(m any) {
	a.t.Helper()
	require.NoError(a.t, a.rpc.SendMsg(m))
}

// expectCommand receives the next message, which must be a command of this type.
func (a *agent) expectCommand(typ string) *commands.Command {
	a.t.Helper()
	cmd, err := a.command()
	require.NoError(a.t, err, "%s waits for a %s", a.vm, typ)
	require.Equal(a.t, typ, cmd.GetType(), cmd.GetId())
	return cmd
}

// expect receives the next message, which must be the command with this id.
func (a *agent) expect(id string) {
	a.t.Helper()
	cmd, err := a.command()
	require.NoError(a.t, err, "%s waits for the command %s", a.vm, id)
	require.Equal(a.t, id, cmd.GetId(), cmd.GetType())
}

// acked acks a command with success.
func (a *agent) acked(id string) {
	a.t.Helper()
	require.NoError(a.t, a.ack(&commands.CommandAck{CommandId: id, Success: true}))
}

// happened reports an event.
func (a *agent) happened(typ string) {
	a.t.Helper()
	require.NoError(a.t, a.event(&commands.EventNotification{Type: typ, VmId: a.vm, Timestamp: time.Now().Unix()}))
}

// beat sends a heartbeat of an agent in this state, with the given changes.
func (a *agent) beat(state string, change ...func(*commands.Heartbeat)) {
	a.t.Helper()
	h := &commands.Heartbeat{VmId: a.vm, MigletState: state, Timestamp: time.Now().Unix()}
	for _, f := range change {
		f(h)
	}
	a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}})
}

// withRunner sets whether the runner is configured.
func withRunner(configured bool) func(*commands.Heartbeat) {
	return func(h *commands.Heartbeat) {
		h.RunnerState = &commands.RunnerState{State: "idle", Configured: configured}
	}
}

// register receives register_runner, acks it and reports the registration.
func (a *agent) register() *commands.Command {
	a.t.Helper()
	cmd := a.expectCommand("register_runner")
	a.acked(cmd.GetId())
	a.happened("runner_registered")
	return cmd
}

// expectEnd requires that the stream ends without another message, and returns its status
// code.
func (a *agent) expectEnd() codes.Code {
	a.t.Helper()
	m, err := a.next()
	require.ErrorIs(a.t, err, errEnded, "%s got %v", a.vm, m)
	if errors.Is(a.err, io.EOF) {
		return codes.OK
	}
	return status.Code(a.err)
}

// cut closes the connection, as a network drop does.
func (a *agent) cut() {
	a.t.Helper()
	require.NoError(a.t, a.conn.Close())
}

// requireLives requires that the VM's first session still works in both directions.
func (c *controller) requireLives(t *testing.T, a *agent) {
	t.Helper()
	sent := c.send(t, a.vm, "set_log_level")
	a.expect(sent.GetCommand().GetId())
	a.acked(sent.GetCommand().GetId())
	c.awaitCommand(t, sent.GetCommand().GetId(), succeeded)
	v := c.vm(t, a.vm)
	require.True(t, v.GetConnected())
	require.EqualValues(t, 1, v.GetSessionEpoch(), "it is the same session")
}
