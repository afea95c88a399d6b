package cli

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type watchStream = func(*migcontrollerv1.WatchFleetRequest, *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error

// sends returns a stream that sends the changes and then ends with an error, or nil.
func sends(end error, changes ...*migcontrollerv1.WatchFleetResponse) watchStream {
	return func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
		for _, change := range changes {
			if err := stream.Send(change); err != nil {
				return err
			}
		}
		return end
	}
}

// errRejected ends a watch; errExpired makes it start over.
var (
	errRejected = connect.NewError(connect.CodeInternal, errors.New("internal error"))
	errExpired  = connect.NewError(connect.CodeOutOfRange, errors.New("the changes after this cursor are no longer kept"))
)

// restarting simulates a controller that stops, is unavailable for two attempts, and then
// returns.
func restarting(d *driver, before, after []*migcontrollerv1.WatchFleetResponse) {
	stopping := connect.NewError(connect.CodeUnavailable, errors.New("the controller is stopping"))
	d.fleet.streams = []watchStream{sends(stopping, before...), sends(stopping), sends(nil), sends(nil, after...), sends(errRejected)}
}

func fixedChanges() (before, after []*migcontrollerv1.WatchFleetResponse) {
	before = []*migcontrollerv1.WatchFleetResponse{
		cursorOnly("c0"), vmChange("c1", fixedVMs()[0]), commandChange("c2", fixedCommands()[1]),
	}
	after = []*migcontrollerv1.WatchFleetResponse{
		cursorOnly("c2"), eventChange("c3", fixedEvents()[0]), vmChange("c4", fixedVMs()[2]),
	}
	return before, after
}

// A watch resumes from its last cursor after a restart of the controller, and ends when the
// controller returns another error.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"watch":      {"watch", "--vm", "vm-1", "--cursor", "c-1"},
		"watch-json": {"watch", "--vm", "vm-1", "--cursor", "c-1", "-o", "json"},
	} {
		d := newDriver(t)
		before, after := fixedChanges()
		restarting(d, before, after)
		d.golden(name, args...)
		var cursors []string
		for _, req := range requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet) {
			require.Equal(t, "vm-1", req.VmId)
			cursors = append(cursors, req.Cursor)
		}
		require.Equal(t, []string{"c-1", "c2", "c2", "c2", "c4"}, cursors)
	}
	d := newDriver(t)
	d.terminal(70, "")
	before, after := fixedChanges()
	restarting(d, before, after)
	d.golden("terminal-watch", "watch")
}

// --timeout applies to the first response only; later messages may take longer.
func TestWatchOutlastsTimeout(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			if err := stream.Send(cursorOnly("c0")); err != nil {
				return err
			}
			<-time.After(3500 * time.Millisecond)
			return stream.Send(cursorOnly("c1"))
		},
		sends(errRejected),
	}
	_, stderr, _ := d.run("watch", "--timeout", "3s")
	require.Contains(t, stderr, "--cursor c1", "a message after the timeout is received")
}

// A watch reconnects from its last cursor if a stream sends nothing for too long.
func TestWatchReconnectsAfterSilence(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.program.silence = time.Second
	finish := make(chan struct{})
	t.Cleanup(func() { close(finish) })
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			if err := stream.Send(cursorOnly("c0")); err != nil {
				return err
			}
			<-finish
			return nil
		},
		sends(errRejected),
	}
	_, stderr, code := d.run("watch")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "Lost the connection to the controller; reconnecting.")
	requests := requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet)
	require.Len(t, requests, 2)
	require.Equal(t, "c0", requests[1].Cursor)
}

// An interrupted watch exits with status 0.
func TestWatchInterrupted(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.ctx = ctx
	streamEnded := make(chan struct{})
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			defer close(streamEnded)
			if err := stream.Send(cursorOnly("c7")); err != nil {
				return err
			}
			cancel()
			return nil
		},
	}
	_, _, code := d.run("watch")
	<-streamEnded
	require.Zero(t, code)
}

// A watch with an unknown cursor fails immediately.
func TestWatchCursor(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.fail = func(any) error {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("cursor must be empty"))
	}
	_, stderr, code := d.run("watch", "--cursor", "nonsense")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "cursor must be empty")
}

// events -f prints stored events, latest last, and then new ones. It prints each event
// once, and only if it matches.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.streams = []watchStream{sends(
		errRejected,
		cursorOnly("c0"),
		eventChange("c1", fixedEvents()[0]), // listed already
		vmChange("c2", fixedVMs()[0]),
		eventChange("c3", fixedEvent(4, "vm-1", "job_completed", 0, map[string]any{"success": true})),
		eventChange("c4", fixedEvent(5, "vm-1", "vm_shutting_down", 0, nil)),
	)}
	d.golden("events-follow", "events", "-f")

	d = newDriver(t)
	d.fleet.events = nil
	d.fleet.streams = []watchStream{sends(
		errRejected,
		cursorOnly("c0"),
		eventChange("c3", fixedEvent(4, "vm-1", "job_completed", 0, nil)),
		eventChange("c4", fixedEvent(5, "vm-1", "vm_shutting_down", 0, nil)),
	)}
	d.golden("events-follow-type", "events", "-f", "--type", "job_completed", "-o", "json")
}

// If the missed changes are no longer stored, a watch prints the current VMs and continues,
// and events -f lists the missed events. An expired --cursor is an error.
func TestWatchExpired(t *testing.T) {
	t.Parallel()
	expire := func(d *driver) {
		before, after := fixedChanges()
		d.fleet.streams = []watchStream{sends(nil, before...), sends(errExpired), sends(errRejected, after...)}
	}
	d := newDriver(t)
	expire(d)
	d.golden("watch-expired", "watch")
	var cursors []string
	for _, req := range requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet) {
		cursors = append(cursors, req.Cursor)
	}
	require.Equal(t, []string{"", "c2", ""}, cursors)

	d = newDriver(t)
	expire(d)
	missed := []*migcontrollerv1.Event{ // more than --limit
		fixedEvent(8, "vm-2", "runner_registered", 0, nil), fixedEvent(7, "vm-2", "vm_started", 0, nil),
	}
	d.fleet.fail = func(request any) error {
		if _, ok := request.(*migcontrollerv1.WatchFleetRequest); ok && len(d.fleet.streams) == 1 {
			d.fleet.events = append(missed, d.fleet.events...)
		}
		return nil
	}
	d.golden("events-expired", "events", "-f", "--limit", "1")

	d = newDriver(t)
	d.fleet.streams = []watchStream{sends(errExpired)}
	_, stderr, code := d.run("watch", "--cursor", "c1")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "Watch without --cursor")
}
