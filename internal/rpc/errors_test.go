package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// sentinels are all errors of the domain by their names.
var sentinels = map[string]error{
	"ErrNotFound":     fleet.ErrNotFound,
	"ErrIDTaken":      fleet.ErrIDTaken,
	"ErrEnded":        fleet.ErrEnded,
	"ErrNotDelivered": fleet.ErrNotDelivered,
	"ErrNotDue":       fleet.ErrNotDue,
	"ErrNothingDue":   fleet.ErrNothingDue,
	"ErrSuperseded":   fleet.ErrSuperseded,
	"ErrStopping":     fleet.ErrStopping, "ErrUnavailable": fleet.ErrUnavailable, "ErrDatabaseRemoved": fleet.ErrDatabaseRemoved,
	"ErrCursorExpired": fleet.ErrCursorExpired,
	"ErrThrottled":     fleet.ErrThrottled,
	"ErrNoToken":       fleet.ErrNoToken,
	"ErrDamaged":       fleet.ErrDamaged,
}

// Every domain error has a row in the table: none becomes Internal because it was forgotten.
func TestEverySentinelHasACode(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../fleet/errors.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, name := range spec.Names {
			if strings.HasPrefix(name.Name, "Err") {
				declared++
				require.Contains(t, sentinels, name.Name, "add it here and to the table")
			}
		}
		return false
	})
	require.Len(t, sentinels, declared)
	for name, sentinel := range sentinels {
		require.NotEqual(t, connect.CodeInternal, toConnect(fmt.Errorf("some call: %w", sentinel)).Code(), name)
	}
}

func TestToConnect(t *testing.T) {
	t.Parallel()
	refused := connect.NewError(connect.CodePermissionDenied, errors.New("not yours"))
	secret := errors.New("open /var/lib/x: disk full")
	tests := []struct {
		name    string
		err     error
		code    connect.Code
		message string
	}{
		{
			"a field", fmt.Errorf("send: %w", fleet.Invalid("vm_id", "must be %d letters", 3)),
			connect.CodeInvalidArgument, "vm_id must be 3 letters",
		},
		{"not found", fmt.Errorf("command %q: %w", "c1", fleet.ErrNotFound), connect.CodeNotFound, `command "c1": not found`},
		{
			"id taken", fmt.Errorf("command %q: %w", "c1", fleet.ErrIDTaken),
			connect.CodeAlreadyExists, `command "c1": command.id is in use for another command`,
		},
		{
			"damaged", fmt.Errorf("command %q: %w", "c1", fleet.ErrDamaged),
			connect.CodeDataLoss, `command "c1": the record is damaged and was set aside`,
		},
		{
			"ended", fmt.Errorf("command %q: %w", "c1", fleet.ErrEnded),
			connect.CodeFailedPrecondition, `command "c1": the command has already ended`,
		},
		{"not delivered", fleet.ErrNotDelivered, connect.CodeFailedPrecondition, "the command is not delivered"},
		{"not due", fleet.ErrNotDue, connect.CodeFailedPrecondition, "the command is not due"},
		{"nothing due", fleet.ErrNothingDue, connect.CodeFailedPrecondition, "nothing due"},
		{"unavailable", fmt.Errorf("%w: %w", fleet.ErrUnavailable, secret), connect.CodeUnavailable, fleet.ErrUnavailable.Error()},
		{"superseded", fmt.Errorf("ack: %w", fleet.ErrSuperseded), connect.CodeAborted, "a newer session has superseded this one"},
		{"silent", fmt.Errorf("%w: silent for 50s", fleet.ErrSilent), connect.CodeUnavailable, "nothing was received on the stream in time"},
		{"stopping", fmt.Errorf("open: %w", fleet.ErrStopping), connect.CodeUnavailable, "the controller is stopping"},
		{
			"cursor expired", fmt.Errorf("watch: %w", fleet.ErrCursorExpired),
			connect.CodeOutOfRange, "the changes after this cursor are no longer kept",
		},
		{
			"no token, since its source took too long", fmt.Errorf("%w: %w", fleet.ErrNoToken, context.DeadlineExceeded),
			connect.CodeUnavailable, "no registration token is available",
		},
		{"cancelled", fmt.Errorf("watch: %w", context.Canceled), connect.CodeCanceled, "context canceled"},
		{"out of time", context.DeadlineExceeded, connect.CodeDeadlineExceeded, "context deadline exceeded"},
		{"already a connect error", fmt.Errorf("some call: %w", refused), connect.CodePermissionDenied, "not yours"},
		{"anything else", secret, connect.CodeInternal, "internal error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := toConnect(test.err)
			require.Equal(t, test.code, err.Code())
			require.Equal(t, test.message, err.Message())
		})
	}
	require.Same(t, refused, toConnect(refused), "with all its details")
}

// The detail has the information of the message in a form for programs.
func TestErrorDetails(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want *migcontrollerv1.ErrorDetail
	}{
		{
			fmt.Errorf("send: %w", fleet.Invalid("command.type", "must be short")),
			&migcontrollerv1.ErrorDetail{
				Reason: migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD,
				Field:  "command.type", Rule: "must be short",
			},
		},
		{fleet.ErrNotFound, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND)},
		{fleet.ErrIDTaken, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN)},
		{fleet.ErrEnded, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED)},
		{fleet.ErrCursorExpired, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED)},
		{fleet.ErrDamaged, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_DAMAGED)},
		{fleet.ErrNoToken, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_NO_REGISTRATION_TOKEN)},
		{fleet.ErrStopping, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING)},
		{fleet.ErrUnavailable, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE)},
		{auth.ErrRevoked, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED)},
		{&auth.Forbidden{Message: "no"}, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED)},
		{auth.ErrTooMany, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_FAILURES)},
		{auth.ErrTooManyTokens, reasonOnly(migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_TOKENS)},
	}
	seen := map[migcontrollerv1.ErrorReason]bool{noReason: true}
	for _, test := range tests {
		got := toConnect(fmt.Errorf("some call: %w", test.err))
		require.Len(t, got.Details(), 1, test.err)
		detail, err := got.Details()[0].Value()
		require.NoError(t, err)
		require.True(t, proto.Equal(test.want, detail), "%v", detail)
		seen[test.want.GetReason()] = true
	}
	require.Len(t, seen, len(migcontrollerv1.ErrorReason_name), "every reason is used")
	require.Empty(t, toConnect(errors.New("secret")).Details())
	require.Equal(t, connect.CodeInvalidArgument, toConnect(fleet.Invalid("\xff", "must be text")).Code(),
		"an error is returned even when its detail cannot be encoded")
}

func reasonOnly(r migcontrollerv1.ErrorReason) *migcontrollerv1.ErrorDetail {
	return &migcontrollerv1.ErrorDetail{Reason: r}
}
