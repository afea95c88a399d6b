package e2e

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Short names for frequent types and constants.
type (
	commandRecord = migcontrollerv1.CommandRecord
	sendRequest   = migcontrollerv1.SendCommandRequest
)

const (
	pending   = migcontrollerv1.CommandState_COMMAND_STATE_PENDING
	delivered = migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED
	succeeded = migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED
	failed    = migcontrollerv1.CommandState_COMMAND_STATE_FAILED
	timedOut  = migcontrollerv1.CommandState_COMMAND_STATE_TIMED_OUT
	expired   = migcontrollerv1.CommandState_COMMAND_STATE_EXPIRED
	cancelled = migcontrollerv1.CommandState_COMMAND_STATE_CANCELLED

	requested  = migcontrollerv1.RegistrationState_REGISTRATION_STATE_REQUESTED
	registered = migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED
)

func withID(id string) func(*sendRequest) {
	return func(r *sendRequest) { r.Command.Id = id }
}

func withTTL(d time.Duration) func(*sendRequest) {
	return func(r *sendRequest) { r.Ttl = durationpb.New(d) }
}

func withAckTimeout(d time.Duration) func(*sendRequest) {
	return func(r *sendRequest) { r.AckTimeout = durationpb.New(d) }
}

func withWait(d time.Duration) func(*sendRequest) {
	return func(r *sendRequest) { r.Wait = durationpb.New(d) }
}

func request(vm, typ string, change ...func(*sendRequest)) *sendRequest {
	r := &sendRequest{VmId: vm, Command: &commands.Command{Type: typ}}
	for _, f := range change {
		f(r)
	}
	return r
}

// send sends a command to a VM and returns what was accepted.
func (c *controller) send(t *testing.T, vm, typ string, change ...func(*sendRequest)) *commandRecord {
	t.Helper()
	res, err := c.admin.SendCommand(t.Context(), request(vm, typ, change...))
	require.NoError(t, err)
	return res.GetCommand()
}

// command returns the current record of a command.
func (c *controller) command(t *testing.T, id string) *commandRecord {
	t.Helper()
	res, err := c.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: id})
	require.NoError(t, err)
	return res.GetCommand()
}

// awaitCommand waits until a command is in the state, and returns it.
func (c *controller) awaitCommand(t *testing.T, id string, s migcontrollerv1.CommandState) *commandRecord {
	t.Helper()
	return await(t, "command "+id+" to be "+s.String(),
		func() *commandRecord { return c.command(t, id) },
		func(r *commandRecord) bool { return r.GetState() == s })
}

func (c *controller) cancelCommand(t *testing.T, id string) *commandRecord {
	t.Helper()
	res, err := c.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: id})
	require.NoError(t, err)
	return res.GetCommand()
}

// commandsOf returns the VM's commands of a type, or of all types, in order of acceptance.
func (c *controller) commandsOf(t *testing.T, vm, typ string) []*commandRecord {
	t.Helper()
	res, err := c.admin.ListCommands(t.Context(),
		&migcontrollerv1.ListCommandsRequest{VmId: vm, Type: typ, PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, res.GetNextPageToken())
	var oldestFirst []*commandRecord
	for i := len(res.GetCommands()) - 1; i >= 0; i-- {
		oldestFirst = append(oldestFirst, res.GetCommands()[i])
	}
	return oldestFirst
}

// registrations returns the VM's register_runner commands.
func (c *controller) registrations(t *testing.T, vm string) []*commandRecord {
	t.Helper()
	return c.commandsOf(t, vm, "register_runner")
}

// vm returns the current record of a VM.
func (c *controller) vm(t *testing.T, vm string) *migcontrollerv1.VM {
	t.Helper()
	res, err := c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
	require.NoError(t, err)
	return res.GetVm()
}

// awaitVM returns a VM once ok accepts it.
func (c *controller) awaitVM(
	t *testing.T, vm, what string, ok func(*migcontrollerv1.VM) bool,
) *migcontrollerv1.VM {
	t.Helper()
	return await(t, vm+" to be "+what, func() *migcontrollerv1.VM { return c.vm(t, vm) }, ok)
}

func isRegistered(v *migcontrollerv1.VM) bool { return v.GetRegistration().GetState() == registered }

func isDisconnected(v *migcontrollerv1.VM) bool { return !v.GetConnected() }

// events returns the VM's events of a type, or of all types, latest first.
func (c *controller) events(t *testing.T, vm, typ string) []*migcontrollerv1.Event {
	t.Helper()
	res, err := c.admin.ListEvents(t.Context(),
		&migcontrollerv1.ListEventsRequest{VmId: vm, Type: typ, PageSize: 1000})
	require.NoError(t, err)
	return res.GetEvents()
}

// awaitEvent waits for the VM's only event of a type, and returns it.
func (c *controller) awaitEvent(t *testing.T, vm, typ string) *migcontrollerv1.Event {
	t.Helper()
	return await(t, "the event "+typ+" of "+vm,
		func() []*migcontrollerv1.Event { return c.events(t, vm, typ) },
		func(found []*migcontrollerv1.Event) bool { return len(found) == 1 })[0]
}

// requireCode requires that a call failed with this code and a message that contains all of
// the words.
func requireCode(t *testing.T, err error, code connect.Code, words ...string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code.String(), connect.CodeOf(err).String(), err.Error())
	for _, w := range words {
		require.ErrorContains(t, err, w)
	}
}
