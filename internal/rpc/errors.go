package rpc

import (
	"context"
	"errors"
	"math"
	"strconv"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// errInternal is the whole message to callers for an error that is not their doing.
var errInternal = errors.New("internal error")

// errorCodes is the one table from errors to codes. The first row that fits
// counts: an error of the domain may have the end of some context as its cause.
// Whole rows return all of the text of an error, which names what it is about;
// the others only the text of the row: the cause is the
// controller's own affair.
//
// A row with a reason gives the error an ErrorDetail; the errors of the others
// reach no caller of AdminService or AgentService, or are the caller's own
// doing.
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
	{fleet.ErrDatabaseRemoved, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE, false},
	{fleet.ErrUnavailable, connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE, false},
	{context.Canceled, connect.CodeCanceled, noReason, false},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, noReason, false},
}

const noReason = migcontrollerv1.ErrorReason_ERROR_REASON_UNSPECIFIED

// toConnect returns the error that a caller gets for err, which is not nil. An
// error that already is a *connect.Error stays what it is, and a
// *fleet.FieldError names field and rule, and a *fleet.ThrottledError says when to try
// again, in the header Retry-After. What is in no row is Internal, and its text stays inside.
func toConnect(err error) *connect.Error {
	if answer, ok := errors.AsType[*connect.Error](err); ok {
		return answer
	}
	if field, ok := errors.AsType[*fleet.FieldError](err); ok {
		return withDetail(connect.NewError(connect.CodeInvalidArgument, field), &migcontrollerv1.ErrorDetail{
			Reason: migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD, Field: field.Field, Rule: field.Rule,
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

// withDetail returns err with the detail. A detail that cannot be encoded is
// left out: a field may be named after what a caller sent, in any bytes.
func withDetail(err *connect.Error, detail *migcontrollerv1.ErrorDetail) *connect.Error {
	if d, bad := connect.NewErrorDetail(detail); bad == nil {
		err.AddDetail(d)
	}
	return err
}
