package rpc

import (
	"context"
	"errors"
	"math"
	"strconv"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// errInternal is the complete message to callers for an error that they did not cause.
var errInternal = errors.New("internal error")

// errorCodes is the one table from errors to codes. The first matching row counts, because a
// domain error may wrap the error of a context. Whole rows return the complete text of the
// error, which names its subject; the others return only the text of the row, because the
// cause is internal.
//
// A row with a reason adds an ErrorDetail; the errors of the others do not reach callers of
// AdminService or AgentService, or are caused by the caller.
var errorCodes = []struct {
	err    error
	code   connect.Code
	reason migcontrollerv1.ErrorReason
	whole  bool
}{
	{fleet.ErrNotFound, connect.CodeNotFound, migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND, true},
	{fleet.ErrIDTaken, connect.CodeAlreadyExists, migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN, true},
	{fleet.ErrEnded, connect.CodeFailedPrecondition, migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED, true},
	{fleet.ErrNotDelivered, connect.CodeFailedPrecondition, noReason, false},
	{fleet.ErrNotDue, connect.CodeFailedPrecondition, noReason, false},
	{fleet.ErrNothingDue, connect.CodeFailedPrecondition, noReason, false},
	{fleet.ErrSuperseded, connect.CodeAborted, noReason, false},
	{fleet.ErrThrottled, connect.CodeResourceExhausted, noReason, false},
	{fleet.ErrCursorExpired, connect.CodeOutOfRange, migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED, false},
	{fleet.ErrDamaged, connect.CodeDataLoss, migcontrollerv1.ErrorReason_ERROR_REASON_DAMAGED, true},
	{fleet.ErrNoToken, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_NO_REGISTRATION_TOKEN, false},
	{fleet.ErrStopping, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING, false},
	{fleet.ErrSilent, connect.CodeUnavailable, noReason, false},
	{fleet.ErrDatabaseRemoved, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE, false},
	{fleet.ErrUnavailable, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE, false},
	{auth.ErrForbidden, connect.CodePermissionDenied, migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, true},
	{auth.ErrUnavailable, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE, true},
	{auth.ErrTooMany, connect.CodeResourceExhausted, migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_FAILURES, false},
	{auth.ErrTooManyTokens, connect.CodeResourceExhausted, migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_TOKENS, false},
	{context.Canceled, connect.CodeCanceled, noReason, false},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, noReason, false},
}

const noReason = migcontrollerv1.ErrorReason_ERROR_REASON_UNSPECIFIED

// toConnect returns the error that a caller gets for err, which is not nil. A *connect.Error
// is returned unchanged, a *fleet.FieldError names field and rule, an *auth.Rejection becomes
// Unauthenticated, and a *fleet.ThrottledError sets the header Retry-After. An error without a
// row becomes Internal, without its text.
func toConnect(err error) *connect.Error {
	if answer, ok := errors.AsType[*connect.Error](err); ok {
		return answer
	}
	if field, ok := errors.AsType[*fleet.FieldError](err); ok {
		return withDetail(connect.NewError(connect.CodeInvalidArgument, field), &migcontrollerv1.ErrorDetail{
			Reason: migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD, Field: field.Field, Rule: field.Rule,
		})
	}
	if rejected, ok := errors.AsType[*auth.Rejection](err); ok {
		return withDetail(connect.NewError(connect.CodeUnauthenticated, rejected), &migcontrollerv1.ErrorDetail{
			Reason: migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED,
		})
	}
	for _, row := range errorCodes {
		if !errors.Is(err, row.err) {
			continue
		}
		answer := connect.NewError(row.code, row.err)
		if row.whole {
			answer = connect.NewError(row.code, err)
		}
		if throttled, ok := errors.AsType[*fleet.ThrottledError](err); ok {
			answer.Meta().Set("Retry-After", strconv.Itoa(int(math.Ceil(throttled.After.Seconds()))))
		}
		if row.reason == noReason {
			return answer
		}
		return withDetail(answer, &migcontrollerv1.ErrorDetail{Reason: row.reason})
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}

// withDetail returns err with the detail. A detail that cannot be encoded is left out: the
// name of a field may contain arbitrary bytes from the caller.
func withDetail(err *connect.Error, detail *migcontrollerv1.ErrorDetail) *connect.Error {
	if d, bad := connect.NewErrorDetail(detail); bad == nil {
		err.AddDetail(d)
	}
	return err
}
