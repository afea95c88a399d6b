package cli

import (
	"errors"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// migctl warns before sending that an agent probably reads no commands, except with
// structured output.
func TestWarnAgentReadsNoCommands(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.vms[0].LastAckAt = d.fleet.vms[0].Registration.RequestedAt
	const warning = "has acked nothing since"
	for _, args := range [][]string{{"send", "vm-1", "update_config"}, {"drain", "vm-1", "--wait", "1s"}} {
		_, stderr, _ := d.run(args...)
		require.Contains(t, stderr, "Warning: the runner of vm-1 is registered")
		require.Contains(t, stderr, warning)
	}
	_, stderr, _ := d.run("broadcast", "drain", "--pool", "builders", "--yes")
	require.Contains(t, stderr, "Warning: the runners of 1 VM are registered")
	_, stderr, _ = d.run("send", "vm-1", "drain", "-o", "json")
	require.NotContains(t, stderr, "Warning")

	d.fleet.vms[0].Connected = false
	_, stderr, _ = d.run("send", "vm-1", "drain")
	require.NotContains(t, stderr, "Warning", "it reads commands again after it reconnects")
	_, stderr, _ = d.run("broadcast", "drain", "--pool", "builders", "--yes")
	require.NotContains(t, stderr, "Warning")
	d.fleet.vms[0].Connected = true

	d.fleet.vms[0].LastAckAt = stamp(0)
	_, stderr, _ = d.run("send", "vm-1", "drain")
	require.NotContains(t, stderr, "Warning", "its agent has acked a command since")
}

// After a failed lookup, no further VMs are looked up, and the commands are still sent.
func TestWarnStopsAtLookupError(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.fail = func(request any) error {
		if _, ok := request.(*migcontrollerv1.GetVMRequest); ok {
			return connect.NewError(connect.CodeInternal, errors.New("internal error"))
		}
		return nil
	}
	const done = migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED
	d.fleet.results = map[string]migcontrollerv1.CommandState{"vm-1": done, "vm-2": done, "vm-3": done}
	_, stderr, code := d.run("drain", "vm-1", "vm-2", "vm-3")
	require.Zero(t, code, stderr)
	require.Len(t, requestsOf[*migcontrollerv1.GetVMRequest](d.fleet), 1)
}
