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

// sends is a stream of changes that ends with an error, or without one.
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

// errRefused ends a watch for good; errExpired makes it begin anew.
var (
	errRefused = connect.NewError(connect.CodeInternal, errors.New("internal error"))
	errExpired = connect.NewError(connect.CodeOutOfRange, errors.New("the changes after this cursor are no longer kept"))
)

// restarting is a controller that stops, is away for two attempts, and is then back.
func restarting(d *desk, before, after []*migcontrollerv1.WatchFleetResponse) {
	stopping := connect.NewError(connect.CodeUnavailable, errors.New("the controller is stopping"))
	d.fleet.streams = []watchStream{sends(stopping, before...), sends(stopping), sends(nil), sends(nil, after...), sends(errRefused)}
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

// A watch continues from its last cursor when the controller is back, and ends when the
// controller returns another error.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"watch":      {"watch", "--vm", "vm-1", "--cursor", "c-1"},
		"watch-json": {"watch", "--vm", "vm-1", "--cursor", "c-1", "-o", "json"},
	} {
		d := newDesk(t)
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
	d := newDesk(t)
	d.terminal(70, "")
	before, after := fixedChanges()
	restarting(d, before, after)
	d.golden("terminal-watch", "watch")
}

// --timeout is for the first answer: a watch may then be silent for longer.
func TestWatchOutlastsTimeout(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			if err := stream.Send(cursorOnly("c0")); err != nil {
				return err
			}
			<-time.After(1500 * time.Millisecond)
			return stream.Send(cursorOnly("c1"))
		},
		sends(errRefused),
	}
	_, stderr, _ := d.run("watch", "--timeout", "1s")
	require.Contains(t, stderr, "--cursor c1", "what was sent after the silence was seen")
}

// A stream that has been silent for too long is given up, and the watch continues from
// its last cursor.
func TestWatchGivesUpOnSilence(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.program.silence = time.Second
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			if err := stream.Send(cursorOnly("c0")); err != nil {
				return err
			}
			<-over
			return nil
		},
		sends(errRefused),
	}
	_, stderr, code := d.run("watch")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "Lost the connection to the controller; reconnecting.")
	requests := requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet)
	require.Len(t, requests, 2)
	require.Equal(t, "c0", requests[1].Cursor)
}

// Interrupting a watch is its normal end.
func TestWatchInterrupted(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.ctx = ctx
	gone := make(chan struct{})
	d.fleet.streams = []watchStream{
		func(_ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error {
			defer close(gone)
			if err := stream.Send(cursorOnly("c7")); err != nil {
				return err
			}
			cancel()
			return nil
		},
	}
	_, _, code := d.run("watch")
	<-gone
	require.Zero(t, code)
}

// A cursor that the controller does not know is refused at once.
func TestWatchCursor(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fleet.fail = func(any) error {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("cursor must be empty"))
	}
	_, stderr, code := d.run("watch", "--cursor", "nonsense")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "cursor must be empty")
}

// Following events shows those that there are, the latest last, then new ones,
// each once, and only those that match.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fleet.streams = []watchStream{sends(
		errRefused,
		cursorOnly("c0"),
		eventChange("c1", fixedEvents()[0]), // listed already
		vmChange("c2", fixedVMs()[0]),
		eventChange("c3", fixedEvent(4, "vm-1", "job_completed", 0, map[string]any{"success": true})),
		eventChange("c4", fixedEvent(5, "vm-1", "vm_shutting_down", 0, nil)),
	)}
	d.golden("events-follow", "events", "-f")

	d = newDesk(t)
	d.fleet.events = nil
	d.fleet.streams = []watchStream{sends(
		errRefused,
		cursorOnly("c0"),
		eventChange("c3", fixedEvent(4, "vm-1", "job_completed", 0, nil)),
		eventChange("c4", fixedEvent(5, "vm-1", "vm_shutting_down", 0, nil)),
	)}
	d.golden("events-follow-type", "events", "-f", "--type", "job_completed", "-o", "json")
}

// When what was missed is no longer kept, a watch shows how the VMs are and goes
// on, and events are listed again; only a cursor that was typed is refused.
func TestWatchExpired(t *testing.T) {
	t.Parallel()
	expire := func(d *desk) {
		before, after := fixedChanges()
		d.fleet.streams = []watchStream{sends(nil, before...), sends(errExpired), sends(errRefused, after...)}
	}
	d := newDesk(t)
	expire(d)
	d.golden("watch-expired", "watch")
	var cursors []string
	for _, req := range requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet) {
		cursors = append(cursors, req.Cursor)
	}
	require.Equal(t, []string{"", "c2", ""}, cursors)

	d = newDesk(t)
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

	d = newDesk(t)
	d.fleet.streams = []watchStream{sends(errExpired)}
	_, stderr, code := d.run("watch", "--cursor", "c1")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "Watch without --cursor")
}
