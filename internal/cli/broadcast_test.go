package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// A broadcast asks for confirmation, and sends nothing unless the answer is yes.
func TestBroadcastConfirmation(t *testing.T) {
	t.Parallel()
	for typed, sends := range map[string]int{"y\n": 3, "YES\n": 3, "n\n": 0, "\n": 0, "": 0, "maybe\n": 0} {
		d := newDriver(t)
		d.terminal(100, typed)
		_, stderr, code := d.run("broadcast", "drain", "--color", "never")
		require.Contains(t, stderr, "Send drain to 3 VMs, the whole fleet, at http://controller:8080? [y/N] ")
		require.Len(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet), sends, "%q", typed)
		if sends == 0 {
			require.Equal(t, exitFailed, code)
			require.Contains(t, stderr, "nothing was sent")
		} else {
			require.Zero(t, code)
		}
	}
	d := newDriver(t)
	d.terminal(100, "y\n")
	d.golden("broadcast-terminal", "broadcast", "drain", "--pool", "builders", "--parallel", "1")
}

// A broadcast continues after a failure for one VM, and reports it and exits with a
// failure status.
func TestBroadcastFailures(t *testing.T) {
	t.Parallel()
	refuse := func(vms ...string) func(any) error {
		return func(request any) error {
			req, ok := request.(*migcontrollerv1.SendCommandRequest)
			for _, vm := range vms {
				if ok && req.VmId == vm {
					return connect.NewError(connect.CodeInvalidArgument, errors.New("command.type must be given"))
				}
			}
			return nil
		}
	}
	d := newDriver(t)
	d.fleet.fail = refuse("vm-2")
	d.golden("broadcast-one-failed", "broadcast", "drain", "--yes", "--parallel", "1")

	d = newDriver(t)
	d.fleet.fail = refuse("vm-1", "vm-2", "vm-3")
	_, _, code := d.run("broadcast", "drain", "--yes")
	require.Equal(t, exitUsage, code, "if all are rejected, the status is that of the rejection")

	d = newDriver(t)
	d.fleet.results = map[string]migcontrollerv1.CommandState{
		"vm-1": migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED,
		"vm-3": migcontrollerv1.CommandState_COMMAND_STATE_FAILED,
	}
	d.golden("broadcast-wait", "broadcast", "drain", "--yes", "--parallel", "1", "--wait", "30s")

	d = newDriver(t)
	d.fleet.results = map[string]migcontrollerv1.CommandState{"vm-1": migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED}
	d.golden("drain", "drain", "vm-1")
	_, _, code = d.run("drain", "vm-1", "vm-2")
	require.Equal(t, exitNotEnded, code)
}

// No more than --parallel requests are in flight at a time.
func TestBroadcastParallel(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.vms = nil
	for i := range 40 {
		d.fleet.vms = append(d.fleet.vms, &migcontrollerv1.VM{VmId: fmt.Sprintf("vm-%02d", i)})
	}
	var inFlight atomic.Int32
	var lock sync.Mutex
	peak := int32(0)
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	d.fleet.onSend = func() {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		lock.Lock()
		peak = max(peak, n)
		lock.Unlock()
		if n == 4 {
			release()
		}
		<-released
	}
	ids := map[string]bool{}
	stdout, stderr, code := d.run("broadcast", "drain", "--yes", "--parallel", "4", "-o", "json")
	require.Zero(t, code, stderr)
	for _, req := range requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet) {
		ids[req.Command.Id] = true
	}
	require.Equal(t, int32(4), peak)
	require.Len(t, ids, 40, "each VM gets a command of its own")
	var records []struct {
		VM string `json:"vmId"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &records))
	for i, r := range records {
		require.Equal(t, fmt.Sprintf("vm-%02d", i), r.VM, "the summary is in the order of the VMs")
	}
}

// After an interrupt no more commands are sent, and the accepted ones are listed.
func TestBroadcastInterrupted(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.ctx = ctx
	d.program.newID = func() string {
		if len(requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet)) == 1 {
			cancel()
		}
		return "ctl"
	}
	stdout, stderr, code := d.run("broadcast", "drain", "--yes", "--parallel", "1", "--no-headers")
	require.Equal(t, exitInterrupted, code)
	require.Equal(t, "1 of 3 accepted.\n", stderr)
	require.Contains(t, stdout, "vm-1")
	require.Len(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet), 1)
}
