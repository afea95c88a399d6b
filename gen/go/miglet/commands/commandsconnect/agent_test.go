package commandsconnect_test

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

const registerRunner = "register_runner"

// vms counts the VMs that the tests have created.
var vms atomic.Int64

// An agent uses its stream as MIGlets do: it is accepted, gets register_runner, proves the
// registration, and executes an operator's command, whose result the operator sees. A new
// stream of the same VM does not get register_runner again.
func TestAgentLife(t *testing.T) {
	t.Parallel()
	for _, protocol := range clienttest.Protocols {
		t.Run(protocol.Name, func(t *testing.T) {
			t.Parallel()
			admin := migcontrollerv1connect.NewAdminServiceClient(clienttest.NewHTTPClient(t, false), "http://"+shared.HTTP)
			vm := fmt.Sprintf("agent-%d", vms.Add(1)) // never seen before, even with -count

			a := connectAgent(t, protocol, vm)
			register := a.command()
			require.Equal(t, registerRunner, register.GetType())
			require.NotEmpty(t, register.GetStringParams()["registration_token"])
			require.NotEmpty(t, register.GetStringParams()["runner_url"])
			require.NotEmpty(t, register.GetStringArrayParams())
			a.ack(register)
			a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Event{
				Event: &commands.EventNotification{Type: "runner_registered", VmId: vm},
			}})
			a.beat()
			a.obey(admin, "first")

			shown, err := admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
			require.NoError(t, err)
			require.True(t, shown.GetVm().GetConnected())
			require.Equal(t, "examples", shown.GetVm().GetPoolId())
			require.Equal(t,
				migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED, shown.GetVm().GetRegistration().GetState())
			a.leave()

			again := connectAgent(t, protocol, vm)
			again.beat()
			again.obey(admin, "second") // it is first, so nothing was sent before it
			again.leave()
			registrations, err := admin.ListCommands(t.Context(),
				&migcontrollerv1.ListCommandsRequest{VmId: vm, Type: registerRunner})
			require.NoError(t, err)
			require.Len(t, registrations.GetCommands(), 1)
			require.NotContains(t, registrations.GetCommands()[0].GetCommand().GetStringParams(), "registration_token")
		})
	}
}

// An invalid vm_id is rejected in the ConnectAck.
func TestAgentIsRefused(t *testing.T) {
	t.Parallel()
	for _, protocol := range clienttest.Protocols {
		t.Run(protocol.Name, func(t *testing.T) {
			t.Parallel()
			ack := openStream(t, protocol, "no id").receive().GetConnectAck()
			require.NotNil(t, ack)
			require.False(t, ack.GetAccepted())
			require.Contains(t, ack.GetMessage(), "vm_id")
		})
	}
}

// agent is one stream of a VM.
type agent struct {
	t      *testing.T
	vm     string
	stream *connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]
}

// openStream opens a stream and sends the ConnectRequest.
func openStream(t *testing.T, protocol clienttest.Protocol, vm string) *agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clienttest.Patience)
	t.Cleanup(cancel)
	client := commandsconnect.NewCommandServiceClient(
		clienttest.NewHTTPClient(t, true), "http://"+shared.GRPC, protocol.Options...)
	stream, err := client.StreamCommands(ctx)
	require.NoError(t, err)
	a := &agent{t: t, vm: vm, stream: stream}
	a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
		Connect: &commands.ConnectRequest{VmId: vm, PoolId: "examples", Version: "1.0"},
	}})
	return a
}

// connectAgent opens a stream, which must be accepted.
func connectAgent(t *testing.T, protocol clienttest.Protocol, vm string) *agent {
	t.Helper()
	a := openStream(t, protocol, vm)
	ack := a.receive().GetConnectAck()
	require.True(t, ack.GetAccepted(), ack)
	require.NotEmpty(t, ack.GetServerVersion())
	return a
}

func (a *agent) send(message *commands.MIGletMessage) {
	a.t.Helper()
	require.NoError(a.t, a.stream.Send(message))
}

func (a *agent) receive() *commands.ControllerMessage {
	a.t.Helper()
	message, err := a.stream.Receive()
	require.NoError(a.t, err)
	return message
}

func (a *agent) command() *commands.Command {
	a.t.Helper()
	message := a.receive()
	require.NotNil(a.t, message.GetCommand(), message)
	return message.GetCommand()
}

func (a *agent) ack(command *commands.Command) {
	a.t.Helper()
	a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{
		CommandAck: &commands.CommandAck{
			CommandId: command.GetId(), Success: true, Result: map[string]string{"done": command.GetType()},
		},
	}})
}

// beat sends the heartbeat of an idle VM whose runner is registered.
func (a *agent) beat() {
	a.t.Helper()
	a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{
		Heartbeat: &commands.Heartbeat{
			VmId: a.vm, MigletState: "idle", RunnerState: &commands.RunnerState{State: "idle", Configured: true},
		},
	}})
}

// obey makes an operator send a command, which the agent gets next and acks, and which the
// operator then sees as succeeded.
func (a *agent) obey(admin migcontrollerv1connect.AdminServiceClient, name string) {
	a.t.Helper()
	type answer struct {
		sent *migcontrollerv1.SendCommandResponse
		err  error
	}
	answered := make(chan answer, 1)
	ctx := a.t.Context()
	go func() {
		sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
			VmId:    a.vm,
			Command: &commands.Command{Id: a.vm + "-" + name, Type: "update_config", IntParams: map[string]int64{"n": 1 << 60}},
			Wait:    durationpb.New(clienttest.Patience),
		})
		answered <- answer{sent, err}
	}()
	command := a.command()
	require.Equal(a.t, a.vm+"-"+name, command.GetId())
	require.Equal(a.t, map[string]int64{"n": 1 << 60}, command.GetIntParams())
	a.ack(command)
	got := <-answered
	require.NoError(a.t, got.err)
	record := got.sent.GetCommand()
	require.Equal(a.t, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, record.GetState())
	require.Equal(a.t, map[string]string{"done": "update_config"}, record.GetAck().GetResult())
	require.Equal(a.t, int32(1), record.GetAttempts())
}

// leave half-closes the stream, which the controller then ends without an error.
func (a *agent) leave() {
	a.t.Helper()
	require.NoError(a.t, a.stream.CloseRequest())
	_, err := a.stream.Receive()
	require.ErrorIs(a.t, err, io.EOF)
	require.NoError(a.t, a.stream.CloseResponse())
}
