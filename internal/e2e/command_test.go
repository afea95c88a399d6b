package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// TestCommandIDIsTheIdempotencyKey defends senders that retry: the same request with the
// same id is one command, whenever and however often it is sent; another request with that
// id is rejected.
func TestCommandIDIsTheIdempotencyKey(t *testing.T) {
	t.Parallel()
	vm := newVM()
	id := "key-" + vm
	params := func(r *sendRequest) {
		r.Command.StringParams = map[string]string{"a": "1"}
		r.Command.IntParams = map[string]int64{"b": 1 << 60}
		r.Command.BoolParams = map[string]bool{"c": true}
		r.Command.StringArrayParams = []string{"x", "y"}
	}
	first := shared.send(t, vm, "update_config", withID(id), params)
	together(t, 20, func(int) error {
		res, err := shared.grpcAdmin.SendCommand(t.Context(), request(vm, "update_config", withID(id), params))
		if err == nil && !proto.Equal(first, res.GetCommand()) {
			err = fmt.Errorf("%v instead of %v", res.GetCommand(), first)
		}
		return err
	})
	require.Len(t, shared.commandsOf(t, vm, ""), 1)
	for name, other := range map[string]*sendRequest{
		"another VM":    request(newVM(), "update_config", withID(id), params),
		"another type":  request(vm, "drain", withID(id), params),
		"no parameters": request(vm, "update_config", withID(id)),
		"another value": request(vm, "update_config", withID(id), params, func(r *sendRequest) { r.Command.IntParams["b"]++ }),
		"another list":  request(vm, "update_config", withID(id), params, func(r *sendRequest) { r.Command.StringArrayParams[0] = "" }),
	} {
		_, err := shared.admin.SendCommand(t.Context(), other)
		require.Equal(t, connect.CodeAlreadyExists, connect.CodeOf(err), "%s: %v", name, err)
		require.ErrorContains(t, err, id)
	}

	a := shared.connect(t, vm)
	got := a.expectCommand("update_config")
	require.True(t, proto.Equal(first.GetCommand(), got), "%v", got)
	a.acked(id)
	shared.awaitCommand(t, id, succeeded)
	require.Equal(t, succeeded, shared.send(t, vm, "update_config", withID(id), params).GetState(), "it is not executed again")
	a.register()
	shared.awaitVM(t, vm, "registered", isRegistered)
	shared.onlyCommand(t, a)
}

// TestWaitAnswersTheEnd defends the wait of SendCommand: it lasts until the command has
// ended, or for the requested time, and returns the current record.
func TestWaitAnswersTheEnd(t *testing.T) {
	t.Parallel()
	for name, admin := range map[string]migcontrollerv1connect.AdminServiceClient{"Connect": shared.admin, "gRPC": shared.grpcAdmin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			a := shared.connectRegistered(t, vm)
			answer := make(chan *commandRecord, 1)
			go func() {
				res, err := admin.SendCommand(t.Context(), request(vm, "drain", withWait(time.Minute)))
				if err != nil {
					t.Error(err)
				}
				answer <- res.GetCommand()
			}()
			id := a.expectCommand("drain").GetId()
			require.Equal(t, delivered, shared.command(t, id).GetState())
			require.Empty(t, answer, "it has not ended")
			require.NoError(t, a.ack(&commands.CommandAck{CommandId: id, Message: "no", Result: map[string]string{"k": "v"}}))
			r := receive(t, "the answer", answer)
			require.Equal(t, failed, r.GetState())
			require.Equal(t, map[string]string{"k": "v"}, r.GetAck().GetResult())

			began := time.Now()
			res, err := admin.SendCommand(t.Context(), request(vm, "drain", withWait(2*time.Second)))
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second)
			require.Equal(t, delivered, res.GetCommand().GetState(), "the state at the end of the wait")

			res, err = admin.SendCommand(t.Context(),
				request(newVM(), "drain", withWait(time.Minute), withTTL(200*time.Millisecond)))
			require.NoError(t, err)
			require.Equal(t, expired, res.GetCommand().GetState())
		})
	}
}

// TestCancelTakesACommandBack defends CancelCommand in every state.
func TestCancelTakesACommandBack(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	out := shared.send(t, vm, "drain").GetCommand().GetId()
	queued := shared.send(t, vm, "shutdown").GetCommand().GetId()
	last := shared.send(t, vm, "set_log_level").GetCommand().GetId()
	a.expect(out)

	r := shared.cancelCommand(t, queued)
	require.Equal(t, cancelled, r.GetState())
	require.Zero(t, r.GetAttempts())
	require.True(t, proto.Equal(r, shared.cancelCommand(t, queued)), "cancelling twice is not an error")
	r = shared.cancelCommand(t, out)
	require.Equal(t, cancelled, r.GetState())
	require.EqualValues(t, 1, r.GetAttempts())
	require.Contains(t, r.GetReason(), "may have acted")
	a.expect(last) // the cancelled one is not delivered, and blocks nothing

	a.acked(out)
	r = await(t, "the late ack", func() *commandRecord { return shared.command(t, out) },
		func(r *commandRecord) bool { return r.GetAck() != nil })
	require.Equal(t, cancelled, r.GetState())
	a.acked(last)
	shared.awaitCommand(t, last, succeeded)
	_, err := shared.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: last})
	requireCode(t, err, connect.CodeFailedPrecondition, last)
	_, err = shared.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "nobody-sent-this"})
	requireCode(t, err, codeNotFound, "nobody-sent-this")
	_, err = shared.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "../x"})
	requireCode(t, err, codeInvalid, "command_id")
}

// TestCommandExpiresUndelivered defends the deadline: a command whose VM does not connect
// in time is never sent.
func TestCommandExpiresUndelivered(t *testing.T) {
	t.Parallel()
	vm := newVM()
	sent := shared.send(t, vm, "drain", withTTL(300*time.Millisecond))
	require.Equal(t, 300*time.Millisecond, sent.GetExpiresAt().AsTime().Sub(sent.GetAcceptedAt().AsTime()))
	r := shared.awaitCommand(t, sent.GetCommand().GetId(), expired)
	require.False(t, r.GetFinishedAt().AsTime().Before(r.GetExpiresAt().AsTime()))
	require.Zero(t, r.GetAttempts())
	a := shared.connect(t, vm)
	a.register() // and nothing before it
	shared.awaitVM(t, vm, "registered", isRegistered)
	shared.onlyCommand(t, a)
}

// TestBadRequestNamesItsField defends senders: an error names the field and the rule that
// it violates, in Connect and in gRPC, and the request has no effect.
func TestBadRequestNamesItsField(t *testing.T) {
	t.Parallel()
	vm := newVM()
	many := map[string]bool{}
	for i := range 101 {
		many[strconv.Itoa(i)] = true
	}
	for _, test := range []struct {
		field string
		make  func(*sendRequest)
	}{
		{"vm_id", func(r *sendRequest) { r.VmId = "" }},
		{"vm_id", func(r *sendRequest) { r.VmId = "../x" }},
		{"command", func(r *sendRequest) { r.Command = nil }},
		{"command.type", func(r *sendRequest) { r.Command.Type = "" }},
		{"command.type", func(r *sendRequest) { r.Command.Type = "a b" }},
		{"command.id", func(r *sendRequest) { r.Command.Id = "/" }},
		{"command.id", func(r *sendRequest) { r.Command.Id = strings.Repeat("i", 129) }},
		{"command.created_at", func(r *sendRequest) { r.Command.CreatedAt = -1 }},
		{"ttl", withTTL(-time.Second)},
		{"ttl", withTTL(31 * 24 * time.Hour)},
		{"ttl", func(r *sendRequest) { r.Ttl = &durationpb.Duration{Seconds: 1, Nanos: -1} }},
		{"ack_timeout", withAckTimeout(25 * time.Hour)},
		{"wait", withWait(2 * time.Hour)},
		{"command.bool_params", func(r *sendRequest) { r.Command.BoolParams = many }},
		{"command.int_params", func(r *sendRequest) { r.Command.IntParams = map[string]int64{"": 1} }},
		{"command.string_params", func(r *sendRequest) { r.Command.StringParams = map[string]string{strings.Repeat("n", 129): ""} }},
		{"command.string_params", func(r *sendRequest) { r.Command.StringParams = map[string]string{"a": strings.Repeat("x", 16385)} }},
		{"command.string_array_params", func(r *sendRequest) { r.Command.StringArrayParams = make([]string, 101) }},
		{"command.string_array_params", func(r *sendRequest) { r.Command.StringArrayParams = []string{strings.Repeat("x", 16385)} }},
		{"command.string_params[registration_token]", func(r *sendRequest) {
			r.Command.Type, r.Command.StringParams = "register_runner", map[string]string{"registration_token": "t"}
		}},
	} {
		if test.field != "ttl" || request(vm, "drain", test.make).GetTtl().IsValid() { // JSON cannot express the other
			_, err := shared.admin.SendCommand(t.Context(), request(vm, "drain", test.make))
			requireCode(t, err, codeInvalid, test.field+" must")
		}
		_, err := shared.grpcAdmin.SendCommand(t.Context(), request(vm, "drain", test.make))
		requireCode(t, err, codeInvalid, test.field)
	}
	require.Empty(t, shared.commandsOf(t, vm, ""))
}

// TestLimitsAreReachable checks that the limits themselves are accepted.
func TestLimitsAreReachable(t *testing.T) {
	t.Parallel()
	vm := newVM()
	atLimit := func(r *sendRequest) {
		r.Command.Id = strings.Repeat("i", 117) + "-" + vm
		r.Command.StringParams = map[string]string{strings.Repeat("n", 128): strings.Repeat("x", 16384)}
		r.Command.StringArrayParams = make([]string, 100)
		r.Command.IntParams = map[string]int64{}
		for i := range 100 {
			r.Command.IntParams[strconv.Itoa(i)] = -1 << 63
		}
	}
	sent := shared.send(t, vm, "update_config", atLimit,
		withTTL(30*24*time.Hour), withAckTimeout(24*time.Hour))
	require.True(t, proto.Equal(sent, shared.command(t, sent.GetCommand().GetId())))
	require.True(t, proto.Equal(sent.GetCommand(), shared.connect(t, vm).expectCommand("update_config")))
}

// TestRequestOfMoreThanAMebibyteIsRefused defends the controller's memory.
func TestRequestOfMoreThanAMebibyteIsRefused(t *testing.T) {
	t.Parallel()
	vm := newVM()
	large := func(r *sendRequest) {
		largeCommand(r)
		r.Command.StringParams["z"] = strings.Repeat("z", 80<<10)
	}
	for _, admin := range []migcontrollerv1connect.AdminServiceClient{shared.admin, shared.grpcAdmin} {
		_, err := admin.SendCommand(t.Context(), request(vm, "update_config", large))
		requireCode(t, err, connect.CodeResourceExhausted)
	}
	status, answer := shared.call(t, http.MethodPost, shared.httpAddr, "/migcontroller.v1.AdminService/SendCommand",
		fmt.Sprintf(`{"vm_id":%q,"command":{"type":%q}}`, vm, strings.Repeat("x", 1<<20)))
	require.Equal(t, http.StatusTooManyRequests, status, string(answer))
	require.Empty(t, shared.commandsOf(t, vm, ""))
}

// TestUnknownCommandIsNotFound defends GetCommand's errors.
func TestUnknownCommandIsNotFound(t *testing.T) {
	t.Parallel()
	_, err := shared.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "nobody-sent-this"})
	requireCode(t, err, codeNotFound, "nobody-sent-this")
	_, err = shared.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{})
	requireCode(t, err, codeInvalid, "command_id")
	_, err = shared.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "a/b"})
	requireCode(t, err, codeInvalid, "vm_id")
}
