package crash

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

const registerRunner = "register_runner"

// agent is one accepted stream of a VM, on a connection of its own. It sends only what a
// test makes it send.
type agent struct {
	vm        string
	stream    *connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]
	transport *http.Transport
	cancel    context.CancelFunc
	closing   <-chan struct{} // closed by cancel

	// received contains the commands; closed when the stream has ended.
	received chan *commands.Command
	ended    chan struct{} // closed when the stream has ended
	end      error         // why it ended; set before
}

// connectAgent opens a stream for the VM and waits until it is accepted.
func connectAgent(t *testing.T, c *controller, vm string) *agent {
	t.Helper()
	a := openStream(t, c, vm)
	answer := make(chan *commands.ControllerMessage, 1)
	go a.read(answer)
	first := await(t, answer, "the ConnectAck of "+vm)
	require.True(t, first.GetConnectAck().GetAccepted(), "VM %s is not accepted: %v", vm, first)
	return a
}

// openStream opens a stream for the VM without reading it yet.
func openStream(t *testing.T, c *controller, vm string) *agent {
	t.Helper()
	a := &agent{
		vm: vm, transport: newTransport(), received: make(chan *commands.Command, 100), ended: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	a.cancel, a.closing = cancel, ctx.Done()
	client := commandsconnect.NewCommandServiceClient(
		&http.Client{Transport: a.transport}, "http://"+c.grpc, connect.WithGRPC())
	var err error
	a.stream, err = client.StreamCommands(ctx)
	require.NoError(t, err)
	t.Cleanup(a.hangUp)
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
		Connect: &commands.ConnectRequest{VmId: vm, PoolId: "pool-1", OrgId: "org-1", Version: "1.0"},
	}})
	return a
}

// read sends the first message to answer, and then all commands to received.
func (a *agent) read(answer chan<- *commands.ControllerMessage) {
	defer close(a.ended)
	defer close(a.received)
	for {
		message, err := a.stream.Receive()
		if answer != nil {
			answer <- message
			answer = nil
		}
		if err != nil {
			a.end = err
			return
		}
		if message.GetCommand() == nil {
			continue
		}
		select {
		case a.received <- message.GetCommand():
		case <-a.closing:
		}
	}
}

// hangUp ends the stream and waits for its reader.
func (a *agent) hangUp() {
	a.cancel()
	_ = a.stream.CloseRequest() // it may have ended
	_ = a.stream.CloseResponse()
	<-a.ended
	a.transport.CloseIdleConnections()
}

// next waits for a command.
func (a *agent) next(t *testing.T) *commands.Command {
	t.Helper()
	command := await(t, a.received, "a command for "+a.vm)
	require.NotNil(t, command, "the stream of %s ended: %v", a.vm, a.end)
	return command
}

func (a *agent) send(t *testing.T, message *commands.MIGletMessage) {
	t.Helper()
	require.NoError(t, a.stream.Send(message))
}

// ack acks a command with success.
func (a *agent) ack(t *testing.T, id string) {
	t.Helper()
	a.send(t, ackOf(id, true))
}

func ackOf(id string, success bool) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{
		CommandAck: &commands.CommandAck{CommandId: id, Success: success, Message: "done"},
	}}
}

// report reports an event; mark identifies it.
func (a *agent) report(t *testing.T, typ, mark string) {
	t.Helper()
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{
		Event: &commands.EventNotification{
			Type: typ, VmId: a.vm, Data: map[string]string{"mark": mark}, Timestamp: time.Now().Unix(),
		},
	}})
}

// beat sends a heartbeat in a state. The runner is registered in all states except ready.
func (a *agent) beat(t *testing.T, state string) {
	t.Helper()
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{
		Heartbeat: &commands.Heartbeat{
			VmId: a.vm, MigletState: state, Timestamp: time.Now().Unix(),
			RunnerState: &commands.RunnerState{State: "idle", Configured: state != "ready", RunnerName: a.vm},
		},
	}})
}

// register registers the runner: it receives the command, which must be next, acks it and
// sends the proof.
func (a *agent) register(t *testing.T) {
	t.Helper()
	command := a.next(t)
	require.Equal(t, registerRunner, command.GetType())
	a.ack(t, command.GetId())
	a.report(t, "runner_registered", command.GetId())
	a.beat(t, "idle")
}

// awaitIdle waits until this many VMs are known to be idle.
func awaitIdle(t *testing.T, c *controller, n int) {
	t.Helper()
	eventually(t, func() bool {
		idle := 0
		for _, vm := range c.vms(t) {
			if vm.GetStatus() == "idle" {
				idle++
			}
		}
		return idle == n
	}, "not all VMs are idle")
}
