package crash

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type change = migcontrollerv1.WatchFleetResponse

// watcher follows the fleet through crashes: each watch resumes where the previous one
// broke off.
type watcher struct {
	first   string // the cursor where it begins
	changes []*change
	resumed int
	// refused is why a watch could not be resumed; it ends the watcher.
	refused error
}

// follow watches until ctx ends.
func (w *watcher) follow(ctx context.Context, o operator) {
	cursor := w.first
	for ctx.Err() == nil && w.refused == nil {
		stream, err := o.admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
		if err == nil {
			cursor, err = w.receive(stream, cursor)
		}
		if refusal(err) {
			w.refused = err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *watcher) receive(stream *connect.ServerStreamForClient[change], cursor string) (string, error) {
	defer func() { _ = stream.Close() }() // it has ended
	for first := true; stream.Receive(); first = false {
		watched := stream.Msg()
		if first && cursor != w.first {
			w.resumed++
		}
		cursor = watched.GetCursor()
		if watched.GetChangedAt() != nil {
			w.changes = append(w.changes, watched)
		}
	}
	return cursor, stream.Err()
}

// refusal reports whether err was sent by the controller, for a reason other than a
// shutdown.
func refusal(err error) bool {
	return connect.IsWireError(err) && connect.CodeOf(err) != connect.CodeUnavailable
}

// replay returns all changes after the cursor, of a fleet without activity.
func replay(t *testing.T, o operator, cursor string) []*change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	now, err := o.admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	require.True(t, now.Receive(), now.Err())
	last := now.Msg().GetCursor()

	past, err := o.admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
	require.NoError(t, err)
	var all []*change
	for past.Receive() {
		if past.Msg().GetChangedAt() != nil {
			all = append(all, past.Msg())
		}
		if past.Msg().GetCursor() == last {
			return all
		}
	}
	require.FailNow(t, "the watch does not reach the last change", past.Err())
	return nil
}
