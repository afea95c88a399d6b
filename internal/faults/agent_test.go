package faults

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// agent is one stream of a VM. It sends only what a test makes it send, except for answers
// to pings.
type agent struct {
	vm     string
	stream grpc.ClientStream
	reset  context.CancelFunc
	hangUp func() // closes its connection

	inbox chan *commands.ControllerMessage // closed when the stream has ended
	err   error                            // why it ended; set before
}

// dial opens a connection without keepalive pings. Its flow-control windows have the
// protocol's default size: unread messages soon block the sender.
func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open opens a stream, without reading it yet, and sends the ConnectRequest.
func open(t *testing.T, conn *grpc.ClientConn, vm string) *agent {
	t.Helper()
	return openVersion(t, conn, vm, "1.0")
}

// openVersion is open for an agent with this version.
func openVersion(t *testing.T, conn *grpc.ClientConn, vm, version string) *agent {
	t.Helper()
	return openAs(t, conn, &commands.ConnectRequest{VmId: vm, PoolId: "pool-1", OrgId: "org-1", Version: version})
}

// openAs is open with this request.
func openAs(t *testing.T, conn *grpc.ClientConn, request *commands.ConnectRequest) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		"/miglet.commands.CommandService/StreamCommands", grpc.ForceCodec(testkit.RawCodec{}))
	require.NoError(t, err)
	a := &agent{
		vm: request.GetVmId(), stream: stream, reset: cancel, hangUp: func() { _ = conn.Close() },
		inbox: make(chan *commands.ControllerMessage, 100),
	}
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: request}})
	return a
}

// connectTo opens a session on a connection of its own.
func connectTo(t *testing.T, addr, vm string) *agent {
	t.Helper()
	return openAccepted(t, dial(t, addr), vm)
}

func openAccepted(t *testing.T, conn *grpc.ClientConn, vm string) *agent {
	t.Helper()
	return open(t, conn, vm).accepted(t)
}

// accepted starts to read the stream, and waits until it is accepted.
func (a *agent) accepted(t *testing.T) *agent {
	t.Helper()
	go a.read()
	require.True(t, a.message(t).GetConnectAck().GetAccepted())
	return a
}

// connect opens a session.
func (c *controller) connect(t *testing.T, vm string) *agent {
	t.Helper()
	return connectTo(t, c.addr, vm)
}

// connectRegistered opens a session and registers the runner.
func (c *controller) connectRegistered(t *testing.T, vm string) *agent {
	t.Helper()
	a := c.connect(t, vm)
	a.register(t)
	await(t, func() bool { return c.vm(t, vm).GetRunner().GetConfigured() }, "%s is not registered", vm)
	return a
}

// register registers the runner; its command must be next.
func (a *agent) register(t *testing.T) {
	t.Helper()
	command := a.next(t)
	require.Equal(t, "register_runner", command.GetType())
	a.ack(t, command.GetId())
	a.report(t, "runner_registered", "")
	a.beat(t)
}

func (a *agent) read() {
	defer close(a.inbox)
	for {
		m := new(commands.ControllerMessage)
		if a.err = a.stream.RecvMsg(m); a.err != nil {
			return
		}
		a.inbox <- m
	}
}

// message waits for the next message.
func (a *agent) message(t *testing.T) *commands.ControllerMessage {
	t.Helper()
	select {
	case m, ok := <-a.inbox:
		if !ok {
			require.FailNow(t, "the stream ended", "%s: %v", a.vm, a.err)
		}
		return m
	case <-time.After(patience):
		require.FailNow(t, "nothing arrives", a.vm)
		return nil
	}
}

// next waits for the next command.
func (a *agent) next(t *testing.T) *commands.Command {
	t.Helper()
	m := a.message(t)
	require.NotNil(t, m.GetCommand(), m)
	return m.GetCommand()
}

// expect receives the next command, which must be this one.
func (a *agent) expect(t *testing.T, id string) {
	t.Helper()
	require.Equal(t, id, a.next(t).GetId())
}

// awaitEnd waits for the end of the stream and ignores any messages.
func (a *agent) awaitEnd(t *testing.T) {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case _, ok := <-a.inbox:
			if !ok {
				return
			}
		case <-deadline:
			require.FailNow(t, "the stream does not end", a.vm)
		}
	}
}

func (a *agent) send(t *testing.T, m *commands.MIGletMessage) {
	t.Helper()
	require.NoError(t, a.stream.SendMsg(m))
}

// sendRaw sends bytes that need not be a message.
func (a *agent) sendRaw(t *testing.T, b []byte) {
	t.Helper()
	require.NoError(t, a.stream.SendMsg(b))
}

func (a *agent) ack(t *testing.T, id string) {
	t.Helper()
	require.NoError(t, a.ackNow(id))
}

func (a *agent) ackNow(id string) error {
	return a.stream.SendMsg(ackOf(&commands.CommandAck{CommandId: id, Success: true}))
}

func ackOf(ack *commands.CommandAck) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: ack}}
}

// beat sends the heartbeat of a VM with a registered runner.
func (a *agent) beat(t *testing.T) {
	t.Helper()
	a.send(t, beatOf(a.vm))
}

func beatOf(vm string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: &commands.Heartbeat{
		VmId: vm, MigletState: "idle", Timestamp: time.Now().Unix(),
		RunnerState: &commands.RunnerState{State: "idle", Configured: true, RunnerName: vm},
	}}}
}

func (a *agent) report(t *testing.T, typ, note string) {
	t.Helper()
	a.send(t, eventOf(a.vm, typ, note))
}

func eventOf(vm, typ, note string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: typ, VmId: vm, Timestamp: time.Now().Unix(), Data: map[string]string{"note": note},
	}}}
}

// repeat calls f at intervals until f returns an error, the test ends, or stop is called.
func repeat(t *testing.T, every time.Duration, f func() error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for f() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// beatEvery sends heartbeats until stop is called.
func (a *agent) beatEvery(t *testing.T, every time.Duration) (stop func()) {
	t.Helper()
	return repeat(t, every, func() error { return a.stream.SendMsg(beatOf(a.vm)) })
}

// postHeartbeat reports over HTTP, as an agent does when its stream is down on its side.
func postHeartbeat(ctx context.Context, client *http.Client, addr, vm string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/api/v1/vms/"+vm+"/heartbeat",
		strings.NewReader(`{"type":"job_heartbeat","miglet_state":"idle"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
