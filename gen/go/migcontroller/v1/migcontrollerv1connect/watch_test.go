package migcontrollerv1connect_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// A watch that ended with its controller continues with the next one: the changes in
// between are received exactly once and in order, and earlier ones are not repeated.
func TestWatchResumesAfterRestart(t *testing.T) {
	t.Parallel()
	for _, protocol := range clienttest.Protocols {
		t.Run(protocol.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c, stop := start(t, dir)
			admin := newAdmin(t, c, protocol)
			w := watch(t, admin, "")
			sendAndWait(t, admin, "sim-vm-0001", "before")
			require.Equal(t, lifeOf("before"), w.until("before"))

			stop()
			require.Empty(t, w.rest())
			requireReason(t, w.err(), connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING)

			c, _ = start(t, dir)
			admin = newAdmin(t, c, protocol)
			sendAndWait(t, admin, "sim-vm-0001", "between")
			w = watch(t, admin, w.cursor)
			require.Equal(t, lifeOf("between"), w.until("between"))
			sendAndWait(t, admin, "sim-vm-0001", "after")
			require.Equal(t, lifeOf("after"), w.until("after"))
		})
	}
}

// start starts a controller with one simulated VM, an ideal one. It is stopped by stop, or
// when the test ends.
func start(t *testing.T, dir string) (c *clienttest.Controller, stop func()) {
	t.Helper()
	c, err := clienttest.Start(program, dir, "--simulate=1")
	require.NoError(t, err)
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			require.NoError(t, c.Stop())
		}
	}
	t.Cleanup(stop)
	return c, stop
}

// step is a transition of a command.
type step struct {
	command string
	state   migcontrollerv1.CommandState
}

// lifeOf returns the steps of a command that succeeds.
func lifeOf(command string) []step {
	return []step{
		{command, migcontrollerv1.CommandState_COMMAND_STATE_PENDING},
		{command, migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED},
		{command, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED},
	}
}

// watcher follows the commands that operators send.
type watcher struct {
	t       *testing.T
	changes *connect.ServerStreamForClient[migcontrollerv1.WatchFleetResponse]
	cursor  string // the last
}

// watch begins a watch at the cursor and waits for the first answer.
func watch(t *testing.T, admin adminClient, cursor string) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clienttest.Patience)
	t.Cleanup(cancel)
	changes, err := admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
	require.NoError(t, err)
	t.Cleanup(func() { _ = changes.Close() })
	require.True(t, changes.Receive(), changes.Err())
	require.Nil(t, changes.Msg().GetChangedAt(), "the first answer has only a cursor")
	return &watcher{t: t, changes: changes, cursor: changes.Msg().GetCursor()}
}

// until returns the steps up to the end of the command.
func (w *watcher) until(command string) []step {
	w.t.Helper()
	var steps []step
	for w.changes.Receive() {
		steps = append(steps, w.steps()...)
		record := w.changes.Msg().GetCommand()
		if record.GetCommand().GetId() == command && record.GetFinishedAt() != nil {
			return steps
		}
	}
	require.FailNow(w.t, "the watch ends", "%v", w.err())
	return nil
}

// rest returns the steps until the watch ends.
func (w *watcher) rest() []step {
	var steps []step
	for w.changes.Receive() {
		steps = append(steps, w.steps()...)
	}
	return steps
}

func (w *watcher) err() error { return w.changes.Err() }

// steps stores the cursor and returns the step in the answer, if there is one.
func (w *watcher) steps() []step {
	answer := w.changes.Msg()
	w.cursor = answer.GetCursor()
	record := answer.GetCommand()
	if record == nil || record.GetCommand().GetType() == "register_runner" {
		return nil
	}
	return []step{{record.GetCommand().GetId(), record.GetState()}}
}
