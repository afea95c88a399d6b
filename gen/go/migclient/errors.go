package migclient

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// ErrorDetail returns what the controller attached to an error: its reason, and the field
// that breaks a rule. It is nil when there is none, as with an error that arose on the way
// to the controller.
func ErrorDetail(err error) *migcontrollerv1.ErrorDetail {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, encoded := range e.Details() {
		value, err := encoded.Value()
		if err != nil {
			continue // a detail of a kind that is not known here
		}
		if detail, ok := value.(*migcontrollerv1.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// Retryable reports whether the same call may succeed later: the controller could not be
// reached or is being stopped, the connection broke, or the time was over. It is false for
// a call that its own context canceled. The call may have been carried out all the same; a
// command that has an id can be sent again.
func Retryable(err error) bool {
	switch code := connect.CodeOf(err); {
	case err == nil || errors.Is(err, context.Canceled):
		return false
	case code == connect.CodeUnavailable || code == connect.CodeDeadlineExceeded:
		return true
	default:
		return !connect.IsWireError(err) && !foreign(err)
	}
}

// foreign reports whether what answered is not a controller, but a web server for
// instance. Connect has no code for that.
func foreign(err error) bool {
	e, ok := errors.AsType[*connect.Error](err)
	return ok && strings.HasPrefix(e.Message(), "invalid content-type")
}
