package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// errInternal is all that a caller is told of an error that is none of theirs.
var errInternal = errors.New("internal error")

// errorCodes is the one table from errors to codes. The first row that fits
// counts: an error of the domain may have the end of some context as its cause.
// Of an error, whole rows tell all of its text, which names what it is about;
// the others tell only the text of the row: what is behind it is the
// controller's own affair.
var errorCodes = []struct {
	err   error
	code  connect.Code
	whole bool
}{
	{fleet.ErrNotFound, connect.CodeNotFound, true},
	{fleet.ErrIDTaken, connect.CodeAlreadyExists, true},
	{fleet.ErrEnded, connect.CodeFailedPrecondition, true},
	{fleet.ErrNotDelivered, connect.CodeFailedPrecondition, false},
	{fleet.ErrNotDue, connect.CodeFailedPrecondition, false},
	{fleet.ErrNothingDue, connect.CodeFailedPrecondition, false},
	{fleet.ErrSuperseded, connect.CodeAborted, false},
	{fleet.ErrCursorExpired, connect.CodeOutOfRange, false},
	{fleet.ErrNoToken, connect.CodeUnavailable, false},
	{fleet.ErrStopping, connect.CodeUnavailable, false},
	{fleet.ErrUnavailable, connect.CodeUnavailable, false},
	{context.Canceled, connect.CodeCanceled, false},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, false},
}

// toConnect returns the error that a caller is told of err, which is not nil. An
// error that already is a *connect.Error stays what it is, and a
// *fleet.FieldError tells field and rule. What is in no row is Internal, and its
// text is not told.
func toConnect(err error) *connect.Error {
	if told, ok := errors.AsType[*connect.Error](err); ok {
		return told
	}
	if field, ok := errors.AsType[*fleet.FieldError](err); ok {
		return connect.NewError(connect.CodeInvalidArgument, field)
	}
	for _, row := range errorCodes {
		if !errors.Is(err, row.err) {
			continue
		}
		if row.whole {
			return connect.NewError(row.code, err)
		}
		return connect.NewError(row.code, row.err)
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}
