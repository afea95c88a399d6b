package cli

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// newInterruptedDriver returns a driver that is interrupted during the nth request to send
// or cancel a command.
func newInterruptedDriver(t *testing.T, nth int) *driver {
	t.Helper()
	d := newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	d.ctx = ctx
	seen := 0
	d.fleet.fail = func(request any) error {
		switch request.(type) {
		case *migcontrollerv1.SendCommandRequest, *migcontrollerv1.CancelCommandRequest:
			seen++
			if seen == nth {
				cancel()
			}
		}
		return nil
	}
	return d
}

// An interrupt during a request leaves its outcome unknown: migctl prints the id and how to
// check it, and never claims that nothing was sent.
func TestInterruptedUnknown(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"drain", "vm-1"}, {"broadcast", "drain", "--yes", "--parallel", "1"}, {"send", "vm-1", "drain"}} {
		d := newInterruptedDriver(t, 1)
		stdout, stderr, code := d.run(args...)
		require.Equal(t, exitInterrupted, code, args)
		require.Contains(t, stderr, "interrupted; ctl-0001 may have been accepted", args)
		require.Contains(t, stderr, "migctl command ", args)
		require.NotContains(t, stdout+stderr, "Nothing was sent", args)
		require.Len(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet), 1, args)
	}
	d := newInterruptedDriver(t, 1)
	_, stderr, code := d.run("drain", "vm-1", "-o", "json")
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, stderr, `{"error":{"name":"vm-1","message":"interrupted; ctl-0001 may have been accepted","hint":"To check it: migctl command ctl-0001;`)
}

// A command that was accepted before the interrupt is listed, with its id.
func TestInterruptedAccepted(t *testing.T) {
	t.Parallel()
	d := newInterruptedDriver(t, 2)
	stdout, stderr, code := d.run("drain", "vm-1")
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, stdout, "ctl-0001")
	require.Contains(t, stderr, "1 of 1 accepted, 0 succeeded, 0 did not succeed, 1 not finished.")

	d = newInterruptedDriver(t, 2)
	_, stderr, code = d.run("send", "vm-1", "drain", "--wait", "1m")
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, stderr, "ctl-0001 was accepted")
}

// After an interrupt of a cancel, cancelled commands are listed, and the one that may have
// been cancelled is reported.
func TestInterruptedCancel(t *testing.T) {
	t.Parallel()
	d := newInterruptedDriver(t, 1)
	stdout, stderr, code := d.run("cancel", "ctl-aa03", "ctl-aa02")
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, stderr, "ctl-aa03: interrupted; ctl-aa03 may have been cancelled")
	require.NotContains(t, stdout+stderr, "Nothing was cancelled")
	require.NotContains(t, stderr, "ctl-aa02", "its cancellation was not requested")

	d = newInterruptedDriver(t, 2)
	stdout, _, code = d.run("cancel", "ctl-aa03", "ctl-aa02")
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, stdout, "CANCELLED", "the first one was")
}

// An error that does not tell whether the command was accepted is reported as an unknown
// outcome; a rejection is not.
func TestBroadcastUnknown(t *testing.T) {
	t.Parallel()
	for code, unknown := range map[connect.Code]bool{
		connect.CodeUnavailable: true, connect.CodeDeadlineExceeded: true, connect.CodeInternal: true, connect.CodeInvalidArgument: false,
	} {
		d := newDriver(t)
		d.fleet.fail = func(request any) error {
			if _, ok := request.(*migcontrollerv1.SendCommandRequest); ok {
				return connect.NewError(code, errors.New("no luck"))
			}
			return nil
		}
		_, stderr, _ := d.run("drain", "vm-1", "vm-2")
		if unknown {
			require.Contains(t, stderr, "ctl-0001 may have been accepted", code)
			require.Contains(t, stderr, "ctl-0002 may have been accepted", code)
			require.Contains(t, stderr, "0 of 2 accepted, 2 unknown, ", code)
			require.NotContains(t, stderr, "Nothing was sent", code)
		} else {
			require.NotContains(t, stderr, "may have been", code)
		}
	}
}

// A type that is similar to a known type is rejected with a suggestion before anything is
// sent, unless --any-type is given. Other unknown types are sent.
func TestMistypedType(t *testing.T) {
	t.Parallel()
	for typed, meant := range map[string]string{
		"drian": "drain", "DRAIN": "drain", "drain_": "drain", "set-log-level": "set_log_level", "shutdwon": "shutdown", "updateconfig": "update_config",
		"register-runer": "register_runner",
	} {
		for _, args := range [][]string{{"send", "vm-1", typed}, {"broadcast", typed, "--yes"}} {
			d := newDriver(t)
			_, stderr, code := d.run(args...)
			require.Equal(t, exitUsage, code, typed)
			require.Contains(t, stderr, "Did you mean "+meant+"?", typed)
			require.Empty(t, d.fleet.requests, "nothing is sent")
			_, stderr, code = d.run(append(args, "--any-type")...)
			require.Zero(t, code, stderr)
			require.Equal(t, typed, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet)[0].GetCommand().GetType())
		}
	}
	for _, kind := range []string{"drain", "collect_logs", "reboot"} {
		_, stderr, code := newDriver(t).run("send", "vm-1", kind)
		require.Zero(t, code, stderr)
	}
}
