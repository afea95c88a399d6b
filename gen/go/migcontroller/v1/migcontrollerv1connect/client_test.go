package migcontrollerv1connect_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

type adminClient = migcontrollerv1connect.AdminServiceClient

// SendCommand with wait returns the result of the command.
func TestSendAndWait(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, admin adminClient) {
		t.Helper()
		record := sendAndWait(t, admin, "sim-vm-0001", "")
		require.Equal(t, "sim-vm-0001", record.GetVmId())
		require.Equal(t, map[string]string{"level": "debug"}, record.GetCommand().GetStringParams())
		require.Equal(t, map[string]string{"level": "debug"}, record.GetAck().GetResult())

		got, err := admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: record.GetCommand().GetId()})
		require.NoError(t, err)
		require.Equal(t, record.String(), got.GetCommand().String())
	})
}

// Every error that a program can act upon has its code, and a detail with its reason.
func TestErrors(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, admin adminClient) {
		t.Helper()
		vm := idOf(t, "errors")
		_, err := send(t, admin, vm, "", "drain now")
		detail := requireRefused(t, err, connect.CodeInvalidArgument)
		require.Equal(t, migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD, detail.GetReason())
		require.Equal(t, "command.type", detail.GetField())
		require.NotEmpty(t, detail.GetRule())

		_, err = send(t, admin, vm, vm, "drain")
		require.NoError(t, err)
		_, err = send(t, admin, vm, vm, "drain")
		require.NoError(t, err, "the same command again")
		_, err = send(t, admin, vm, vm, "shutdown")
		requireReason(t, err, connect.CodeAlreadyExists, migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN)

		_, err = admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: vm + "-missing"})
		requireReason(t, err, connect.CodeNotFound, migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND)
		_, err = admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm + "-missing"})
		requireReason(t, err, connect.CodeNotFound, migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND)

		done := sendAndWait(t, admin, "sim-vm-0001", "")
		_, err = admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: done.GetCommand().GetId()})
		requireReason(t, err, connect.CodeFailedPrecondition, migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED)

		// The error of a stream is returned with its first answer.
		changes, err := admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: "no cursor"})
		require.NoError(t, err)
		defer changes.Close()
		require.False(t, changes.Receive())
		require.Equal(t, "cursor", requireRefused(t, changes.Err(), connect.CodeInvalidArgument).GetField())
	})
}

// A watch ends when its context does.
func TestWatchDeadline(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, admin adminClient) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		changes, err := admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{VmId: idOf(t, "quiet")})
		for err == nil && changes.Receive() {
			require.Nil(t, changes.Msg().GetChangedAt())
		}
		if err == nil {
			defer changes.Close()
			err = changes.Err()
		}
		require.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err), err)
	})
}

// A call whose deadline is before the end of its wait returns in time, with the current
// record.
func TestWaitPastDeadline(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, admin adminClient) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
			VmId:    idOf(t, "offline"),
			Command: &commands.Command{Type: "drain"},
			Wait:    durationpb.New(time.Hour),
		})
		require.NoError(t, err)
		require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_PENDING, sent.GetCommand().GetState())
	})
}

// Pages contain every item once, in the order of the list, and a page_token is valid only
// with its filters.
func TestPages(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, admin adminClient) {
		t.Helper()
		vm := idOf(t, "pages")
		var sent []string
		for i := range 5 {
			record, err := send(t, admin, vm, fmt.Sprintf("%s-%d", vm, i), "drain")
			require.NoError(t, err)
			sent = append(sent, record.GetCommand().GetId())
		}
		slices.Reverse(sent) // the latest first

		var listed []string
		var sizes []int
		request := &migcontrollerv1.ListCommandsRequest{VmId: vm, PageSize: 2}
		for more := true; more; more = request.GetPageToken() != "" {
			page, err := admin.ListCommands(t.Context(), request)
			require.NoError(t, err)
			for _, record := range page.GetCommands() {
				listed = append(listed, record.GetCommand().GetId())
			}
			sizes = append(sizes, len(page.GetCommands()))
			require.LessOrEqual(t, len(sizes), 3)
			if token := page.GetNextPageToken(); token != "" {
				_, err := admin.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{PageSize: 2, PageToken: token})
				require.Equal(t, "page_token", requireRefused(t, err, connect.CodeInvalidArgument).GetField())
			}
			request.PageToken = page.GetNextPageToken()
		}
		require.Equal(t, sent, listed)
		require.Equal(t, []int{2, 2, 1}, sizes)
	})
}

// send sends a command without waiting for its end.
func send(t *testing.T, admin adminClient, vm, id, typ string) (*migcontrollerv1.CommandRecord, error) {
	t.Helper()
	sent, err := admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{
		VmId: vm, Command: &commands.Command{Id: id, Type: typ},
	})
	return sent.GetCommand(), err
}

// sendAndWait sends a command to a simulated VM and requires that it succeeds.
func sendAndWait(t *testing.T, admin adminClient, vm, id string) *migcontrollerv1.CommandRecord {
	t.Helper()
	sent, err := admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{
		VmId: vm,
		Command: &commands.Command{
			Id: id, Type: "set_log_level", StringParams: map[string]string{"level": "debug"},
		},
		Wait: durationpb.New(clienttest.Patience),
	})
	require.NoError(t, err)
	require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, sent.GetCommand().GetState())
	return sent.GetCommand()
}

func requireReason(t *testing.T, err error, code connect.Code, reason migcontrollerv1.ErrorReason) {
	t.Helper()
	detail := requireRefused(t, err, code)
	require.Equal(t, reason, detail.GetReason())
	require.Empty(t, detail.GetField())
	require.Empty(t, detail.GetRule())
}

// idOf returns an id that is unique per test and protocol.
func idOf(t *testing.T, what string) string {
	t.Helper()
	return what + "-" + strings.NewReplacer("/", "-", "#", "-").Replace(t.Name())
}
