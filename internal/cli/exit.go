package cli

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
)

// The statuses that migctl exits with; helpFoot says what each means.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitNotEnded    = 5
	exitInterrupted = 130
)

// failure is an error that knows the exit status and what to try next.
type failure struct {
	code int
	text string
	// hint is empty when there is nothing to try.
	hint string
}

// Error says what went wrong.
func (f *failure) Error() string { return f.text }

// usage returns the error of an argument that breaks a rule.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, text: fmt.Sprintf(format, args...), hint: "migctl --help, or --help after a command, says how."}
}

// silent is the error of an outcome that has already been told.
func silent(code int) error { return &failure{code: code} }

// absent is an error about something that may not exist, with the place to look
// for it.
type absent struct {
	error
	hint string
}

// Unwrap returns what happened.
func (a absent) Unwrap() error { return a.error }

// report tells the error, unless it is nil, and returns the status to exit with.
func (p program) report(err error, address string) int {
	if err == nil {
		return exitOK
	}
	f := explain(err, address)
	if f.text != "" {
		fmt.Fprintf(p.stderr, "migctl: %s\n", printable(f.text))
	}
	if f.hint != "" {
		fmt.Fprintf(p.stderr, "  %s\n", f.hint)
	}
	return f.code
}

// explain returns what a person is told of an error that came from address.
func explain(err error, address string) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	told, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return &failure{code: exitFailed, text: err.Error()}
	case told.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return &failure{exitUnavailable, fmt.Sprintf("no answer from %s in time", address), "--timeout allows more. Is it the right --address?"}
	case !connect.IsWireError(err) && told.Code() == connect.CodeUnavailable:
		return &failure{
			exitUnavailable, fmt.Sprintf("cannot reach the controller at %s: %s", address, told.Message()),
			"Is the controller running? --address or MIGCTL_ADDRESS names another place, and\n  migctl config get-contexts lists those you have named.",
		}
	case !connect.IsWireError(err):
		return &failure{
			exitUnavailable, fmt.Sprintf("what answers at %s is no controller that migctl understands: %s", address, told.Message()),
			"Check --address, and that migctl and the controller have the same version.",
		}
	}
	return refused(err, told)
}

// refused returns what a person is told of an error that the controller told.
func refused(err error, told *connect.Error) *failure {
	f := &failure{code: exitFailed, text: told.Message()}
	switch told.Code() {
	case connect.CodeNotFound:
		f.code = exitNotFound
		if a, ok := errors.AsType[absent](err); ok {
			f.hint = a.hint
		}
	case connect.CodeInvalidArgument:
		f.code, f.text = exitUsage, fmt.Sprintf("the controller refused an argument: %s", told.Message())
	case connect.CodeUnavailable:
		f.code, f.hint = exitUnavailable, "Try again in a moment. If it stays like this, the controller's log says why."
	case connect.CodeUnimplemented:
		f.code, f.hint = exitUnavailable, "The controller is of another version than migctl."
	case connect.CodeAlreadyExists:
		f.hint = "Choose another --id, or look at what has it: migctl command ID"
	case connect.CodeOutOfRange:
		f.hint = "Watch without --cursor. What happened in between: migctl events, migctl commands"
	case connect.CodeInternal, connect.CodeUnknown:
		f.hint = "The controller's log says more."
	default:
	}
	return f
}
