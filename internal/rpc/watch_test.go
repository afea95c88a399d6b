package rpc

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/engine"
)

type watchStream = connect.ServerStreamForClient[migcontrollerv1.WatchFleetResponse]

// watchFrom begins a watch and returns its first response, which has only a cursor.
func watchFrom(
	t *testing.T, client migcontrollerv1connect.AdminServiceClient, cursor, vm string,
) (stream *watchStream, first string) {
	t.Helper()
	stream, err := client.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: cursor, VmId: vm})
	require.NoError(t, err)
	t.Cleanup(func() { _ = stream.Close() })
	require.True(t, stream.Receive(), "%v", stream.Err())
	require.Nil(t, stream.Msg().GetChange())
	require.Nil(t, stream.Msg().GetChangedAt())
	require.NotEmpty(t, stream.Msg().GetCursor())
	return stream, stream.Msg().GetCursor()
}

// nextChange returns the next response, which is a change.
func nextChange(t *testing.T, stream *watchStream) *migcontrollerv1.WatchFleetResponse {
	t.Helper()
	require.True(t, stream.Receive(), "%v", stream.Err())
	require.NotNil(t, stream.Msg().GetChange())
	require.NotNil(t, stream.Msg().GetChangedAt())
	return stream.Msg()
}

// A watch shows changes of commands (without their parameters), VMs and events; after a
// restart of the controller it resumes from its last cursor, and nothing is missed.
func TestWatchFleet(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startAdmin(t)
			client := s.clients[protocol]
			stream, _ := watchFrom(t, client, "", "")
			_, err := client.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
			require.NoError(t, err)
			sent := nextChange(t, stream)
			require.Equal(t, "c1", sent.GetCommand().GetCommand().GetId())
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_PENDING, sent.GetCommand().GetState())
			require.Empty(t, sent.GetCommand().GetCommand().GetStringParams())
			cursor := sent.GetCursor()

			s.control.Close()
			for stream.Receive() {
				cursor = stream.Msg().GetCursor()
			}
			require.Equal(t, connect.CodeUnavailable, connect.CodeOf(stream.Err()))

			s.report(t, "vm-9", "error", adminNow())
			again := control.New(control.Options{
				Engine: s.Engine, Clock: adminNow, Log: new(callLog).logger(),
			})
			t.Cleanup(again.Close)
			next := adminClients(t, serveAdmin(t, NewAdminService(again, testServer), new(callLog).logger()))["gRPC"]
			stream, first := watchFrom(t, next, cursor, "vm-9")
			require.Equal(t, cursor, first)
			kinds := map[string]bool{}
			for len(kinds) < 2 {
				change := nextChange(t, stream)
				switch {
				case change.GetVm() != nil:
					require.Equal(t, "vm-9", change.GetVm().GetVmId())
					kinds["vm"] = true
				case change.GetEvent() != nil:
					require.Equal(t, "error", change.GetEvent().GetType())
					require.Equal(t, "vm-9", change.GetEvent().GetVmId())
					require.NotZero(t, change.GetEvent().GetEventId())
					kinds["event"] = true
				}
			}
		})
	}
}

// A watch ends when its caller disconnects.
func TestWatchFleetEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			client := startAdmin(t).clients[protocol]
			ctx, leave := context.WithCancel(t.Context())
			stream, err := client.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
			require.NoError(t, err)
			require.True(t, stream.Receive())
			leave()
			require.False(t, stream.Receive())
			require.Equal(t, connect.CodeCanceled, connect.CodeOf(stream.Err()))
		})
	}
}

// A cursor whose changes were deleted is OUT_OF_RANGE, so that the caller starts again; one of
// another store is INVALID_ARGUMENT.
func TestWatchFleetCursors(t *testing.T) {
	t.Parallel()
	watch := func(s *adminSystem, cursor string) connect.Code {
		stream, err := s.clients["gRPC"].WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
		require.NoError(t, err)
		defer stream.Close()
		require.False(t, stream.Receive(), "nothing is sent")
		return connect.CodeOf(stream.Err())
	}
	s := startAdmin(t)
	_, cursor := watchFrom(t, s.clients["gRPC"], "", "")
	require.Equal(t, connect.CodeInvalidArgument, watch(startAdmin(t), cursor))

	for range 2 {
		s.report(t, "vm-1", "error", adminNow())
	}
	_, err := s.Purge(t.Context(), engine.Retention{Changes: time.Minute}, adminNow().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, connect.CodeOutOfRange, watch(startAdminOn(t, s.Driver), cursor))
}
