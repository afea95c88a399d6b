package rpc

import (
	"context"
	"errors"
	"math"
	"regexp"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// badCalls returns requests with one invalid field each, by that field.
func badCalls(bad string) []struct {
	field string
	call  func(context.Context, migcontrollerv1connect.AdminServiceClient) error
} {
	type client = migcontrollerv1connect.AdminServiceClient
	send := func(change func(*migcontrollerv1.SendCommandRequest)) func(context.Context, client) error {
		return func(ctx context.Context, c client) error {
			req := sendDrain("c1", "vm-1")
			change(req)
			_, err := c.SendCommand(ctx, req)
			return err
		}
	}
	listCommands := func(req *migcontrollerv1.ListCommandsRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error { _, err := c.ListCommands(ctx, req); return err }
	}
	listVMs := func(req *migcontrollerv1.ListVMsRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error { _, err := c.ListVMs(ctx, req); return err }
	}
	listEvents := func(req *migcontrollerv1.ListEventsRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error { _, err := c.ListEvents(ctx, req); return err }
	}
	listHeartbeats := func(req *migcontrollerv1.ListHeartbeatsRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error { _, err := c.ListHeartbeats(ctx, req); return err }
	}
	watch := func(req *migcontrollerv1.WatchFleetRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error {
			stream, err := c.WatchFleet(ctx, req)
			if err != nil {
				return err
			}
			defer stream.Close()
			if stream.Receive() {
				return errors.New("something was sent")
			}
			return stream.Err()
		}
	}
	setLogLevel := func(req *migcontrollerv1.SetLogLevelRequest) func(context.Context, client) error {
		return func(ctx context.Context, c client) error { _, err := c.SetLogLevel(ctx, req); return err }
	}
	now := timestamppb.New(minute(1))
	negative, long := durationpb.New(-1), durationpb.New(math.MaxInt64)
	return []struct {
		field string
		call  func(context.Context, client) error
	}{
		{"command", send(func(r *migcontrollerv1.SendCommandRequest) { r.Command = nil })},
		{"vm_id", send(func(r *migcontrollerv1.SendCommandRequest) { r.VmId = bad })},
		{"command.type", send(func(r *migcontrollerv1.SendCommandRequest) { r.Command.Type = "" })},
		{"command.id", send(func(r *migcontrollerv1.SendCommandRequest) { r.Command.Id = bad })},
		{"command.created_at", send(func(r *migcontrollerv1.SendCommandRequest) { r.Command.CreatedAt = -1 })},
		{"command.string_params[registration_token]", send(func(r *migcontrollerv1.SendCommandRequest) {
			r.Command.Type, r.Command.StringParams = fleet.RegisterRunner, map[string]string{"registration_token": bad}
		})},
		{"ttl", send(func(r *migcontrollerv1.SendCommandRequest) { r.Ttl = negative })},
		{"ttl", send(func(r *migcontrollerv1.SendCommandRequest) { r.Ttl = long })},
		{"ack_timeout", send(func(r *migcontrollerv1.SendCommandRequest) { r.AckTimeout = negative })},
		{"ack_timeout", send(func(r *migcontrollerv1.SendCommandRequest) { r.AckTimeout = long })},
		{"wait", send(func(r *migcontrollerv1.SendCommandRequest) { r.Wait = negative })},
		{"wait", send(func(r *migcontrollerv1.SendCommandRequest) { r.Wait = long })},
		{"level", setLogLevel(&migcontrollerv1.SetLogLevelRequest{})},
		{"level", setLogLevel(&migcontrollerv1.SetLogLevelRequest{Level: 5})},
		{"duration", setLogLevel(&migcontrollerv1.SetLogLevelRequest{Level: 1, Duration: negative})},
		{"duration", setLogLevel(&migcontrollerv1.SetLogLevelRequest{Level: 1, Duration: long})},
		{"command_id", func(ctx context.Context, c client) error {
			_, err := c.GetCommand(ctx, &migcontrollerv1.GetCommandRequest{CommandId: bad})
			return err
		}},
		{"command_id", func(ctx context.Context, c client) error {
			_, err := c.CancelCommand(ctx, &migcontrollerv1.CancelCommandRequest{})
			return err
		}},
		{"vm_id", func(ctx context.Context, c client) error {
			_, err := c.GetVM(ctx, &migcontrollerv1.GetVMRequest{VmId: bad})
			return err
		}},
		{"vm_id", listCommands(&migcontrollerv1.ListCommandsRequest{VmId: bad})},
		{"type", listCommands(&migcontrollerv1.ListCommandsRequest{Type: bad})},
		{"states", listCommands(&migcontrollerv1.ListCommandsRequest{States: []migcontrollerv1.CommandState{42}})},
		{"page_size", listCommands(&migcontrollerv1.ListCommandsRequest{PageSize: -1})},
		{"page_size", listCommands(&migcontrollerv1.ListCommandsRequest{PageSize: 1001})},
		{"page_token", listCommands(&migcontrollerv1.ListCommandsRequest{PageToken: bad})},
		{"pool_id", listVMs(&migcontrollerv1.ListVMsRequest{PoolId: bad})},
		{"org_id", listVMs(&migcontrollerv1.ListVMsRequest{OrgId: bad})},
		{"status", listVMs(&migcontrollerv1.ListVMsRequest{Status: bad})},
		{"page_size", listVMs(&migcontrollerv1.ListVMsRequest{PageSize: math.MinInt32})},
		{"page_token", listVMs(&migcontrollerv1.ListVMsRequest{PageToken: bad})},
		{"vm_id", listHeartbeats(&migcontrollerv1.ListHeartbeatsRequest{})},
		{"page_size", listHeartbeats(&migcontrollerv1.ListHeartbeatsRequest{VmId: "vm-1", PageSize: -1})},
		{"page_token", listHeartbeats(&migcontrollerv1.ListHeartbeatsRequest{VmId: "vm-1", PageToken: bad})},
		{"vm_id", listEvents(&migcontrollerv1.ListEventsRequest{VmId: bad})},
		{"type", listEvents(&migcontrollerv1.ListEventsRequest{Type: bad})},
		{"until", listEvents(&migcontrollerv1.ListEventsRequest{Since: now, Until: now})},
		{"page_size", listEvents(&migcontrollerv1.ListEventsRequest{PageSize: math.MaxInt32})},
		{"page_token", listEvents(&migcontrollerv1.ListEventsRequest{PageToken: bad})},
		{"vm_id", watch(&migcontrollerv1.WatchFleetRequest{VmId: bad})},
		{"cursor", watch(&migcontrollerv1.WatchFleetRequest{Cursor: bad})},
	}
}

// Errors name the invalid field, without its value.
func TestAdminNamesTheInvalidField(t *testing.T) {
	t.Parallel()
	const bad = "_bad?"
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			client := startAdmin(t).clients[protocol]
			for i, test := range badCalls(bad) {
				err := test.call(t.Context(), client)
				var got *connect.Error
				require.ErrorAs(t, err, &got, "%d: %s", i, test.field)
				require.Equal(t, connect.CodeInvalidArgument, got.Code(), "%d: %s", i, test.field)
				require.Regexp(t, "^"+regexp.QuoteMeta(test.field)+" must ", got.Message())
				require.NotContains(t, got.Message(), bad)
			}
			// A valid request is accepted.
			_, err := client.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
			require.NoError(t, err)
		})
	}
}

// Invalid times and durations, which only the binary encoding can express, are refused by
// name.
func TestAdminRejectsInvalidTimes(t *testing.T) {
	t.Parallel()
	s := startAdmin(t)
	client := s.clients["gRPC"]
	for field, req := range map[string]*migcontrollerv1.ListEventsRequest{
		"since": {Since: &timestamppb.Timestamp{Nanos: -1}},
		"until": {Until: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
	} {
		_, err := client.ListEvents(t.Context(), req)
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		require.ErrorContains(t, err, field+" must be a time")
	}
	broken := &durationpb.Duration{Seconds: 1, Nanos: -1}
	for field, set := range map[string]func(*migcontrollerv1.SendCommandRequest){
		"ttl":         func(r *migcontrollerv1.SendCommandRequest) { r.Ttl = broken },
		"ack_timeout": func(r *migcontrollerv1.SendCommandRequest) { r.AckTimeout = broken },
		"wait":        func(r *migcontrollerv1.SendCommandRequest) { r.Wait = broken },
	} {
		req := sendDrain("c1", "vm-1")
		set(req)
		_, err := client.SendCommand(t.Context(), req)
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		require.ErrorContains(t, err, field+" must be a duration")
	}
}
