package migclient

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// ErrorDetail returns what the controller attached to an error: its reason, and the field
// that violates a rule. It is nil if there is none, as for an error that did not come from
// the controller.
func ErrorDetail(err error) *migcontrollerv1.ErrorDetail {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, encoded := range e.Details() {
		value, err := encoded.Value()
		if err != nil {
			continue // a detail of an unknown kind
		}
		if detail, ok := value.(*migcontrollerv1.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// Retryable reports whether the same call may succeed later: the controller could not be
// reached or is shutting down, the connection broke, or the call timed out. It is false for
// a call that was canceled by its own context. The call may have been executed anyway; a
// command with an id can be sent again.
func Retryable(err error) bool {
	switch code := connect.CodeOf(err); {
	case err == nil || errors.Is(err, context.Canceled):
		return false
	case code == connect.CodeUnauthenticated:
		return false // also without an answer, when there was no token to send
	case code == connect.CodeUnavailable || code == connect.CodeDeadlineExceeded:
		return true
	default:
		return !connect.IsWireError(err) && !foreign(err)
	}
}

// foreign reports whether the response came from something other than a controller, such as
// a web server. Connect has no code for that.
func foreign(err error) bool {
	e, ok := errors.AsType[*connect.Error](err)
	return ok && strings.HasPrefix(e.Message(), "invalid content-type")
}
