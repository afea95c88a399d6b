package session

import (
	"context"
	"errors"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// EndCause is why a session ended. Its String is a short constant text, for searching the log.
type EndCause uint8

// The causes of the end of a session: those that the reader of its stream reports, and those
// of the controller itself.
const (
	EndOther EndCause = iota
	EndClosed
	EndReset
	EndConnectionClosed
	EndConnectionReset
	EndConnectionCut
	EndConnectionLost
	EndPingTimeout
	EndWriteTimeout
	EndNotSent
	EndTooLarge
	EndThrottled
	EndProtocol
	EndInternal

	endSuperseded
	endSilent
	endStopping
	endDamaged
)

// endCauses are the texts of the causes in the log, and their labels in the metrics.
var endCauses = [...]struct{ text, label string }{
	EndOther:            {"unknown", "other"},
	EndClosed:           {"closed by the agent", "closed"},
	EndReset:            {"reset by the agent", "reset"},
	EndConnectionClosed: {"connection closed by the peer", "connection_closed"},
	EndConnectionReset:  {"connection reset", "connection_reset"},
	EndConnectionCut:    {"connection closed by the controller", "connection_cut"},
	EndConnectionLost:   {"connection lost", "connection_lost"},
	EndPingTimeout:      {"ping timeout", "ping_timeout"},
	EndWriteTimeout:     {"write timeout", "write_timeout"},
	EndNotSent:          {"message not sent", "not_sent"},
	EndTooLarge:         {"message too large", "too_large"},
	EndThrottled:        {"throttled", "throttled"},
	EndProtocol:         {"protocol error", "protocol_error"},
	EndInternal:         {"internal error", "internal_error"},
	endSuperseded:       {"superseded", "superseded"},
	endSilent:           {"silent", "silent"},
	endStopping:         {"controller stopping", "stopping"},
	endDamaged:          {"record damaged", "damaged"},
}

// String returns the text for the log.
func (c EndCause) String() string { return endCauses[c].text }

// EndError is why a stream ended.
type EndError struct {
	Cause EndCause
	// Err is the underlying error; nil if there is none.
	Err error
}

// Error implements error.
func (e *EndError) Error() string {
	if e.Err == nil {
		return e.Cause.String()
	}
	return e.Cause.String() + ": " + e.Err.Error()
}

// Unwrap returns the underlying error.
func (e *EndError) Unwrap() error { return e.Err }

// endOf returns why a session ended: own is why the controller ended it, and cause is what its
// reader reports.
func endOf(own, cause error) *EndError {
	ending, ok := errors.AsType[*EndError](cause)
	switch {
	case errors.Is(own, fleet.ErrSuperseded):
		return &EndError{Cause: endSuperseded}
	case errors.Is(own, fleet.ErrStopping):
		return &EndError{Cause: endStopping}
	case errors.Is(own, fleet.ErrDamaged):
		return &EndError{Cause: endDamaged}
	case errors.Is(own, fleet.ErrSilent):
		return &EndError{Cause: endSilent, Err: own}
	case !ok:
		return &EndError{Cause: EndOther, Err: cause}
	}
	return ending
}

// attrs are the log attributes of the end of a session.
func (e *EndError) attrs() []any {
	attrs := []any{keyCause, e.Cause.String()}
	if e.Err != nil {
		attrs = append(attrs, logkey.Error, e.Err)
	}
	return attrs
}

// Rejection is why a stream ended before it had a session.
type Rejection string

// The reasons of rejections. RejectInvalid is a ConnectRequest that is malformed or has an
// invalid id, and RejectTimeout one that did not arrive in time. RejectClosed is an agent that
// was gone before it was accepted.
const (
	RejectInvalid     Rejection = "invalid"
	RejectTimeout     Rejection = "timeout"
	RejectClosed      Rejection = "closed"
	RejectProtocol    Rejection = "protocol_error"
	RejectStopping    Rejection = "stopping"
	rejectUnavailable Rejection = "unavailable"
	rejectOther       Rejection = "other"
)

// Rejected counts a stream that ended before Open was called for it. Open counts those that it
// rejects.
func (r *Registry) Rejected(why Rejection) { r.metrics.rejected[why].Inc() }

// rejected counts a stream that Open rejects because of err, which it returns.
func (r *Registry) rejected(err error) error {
	why := rejectOther
	_, invalid := errors.AsType[*fleet.FieldError](err)
	switch {
	case invalid:
		why = RejectInvalid
	case errors.Is(err, fleet.ErrStopping):
		why = RejectStopping
	case errors.Is(err, fleet.ErrUnavailable):
		why = rejectUnavailable
	case errors.Is(err, context.Canceled):
		why = RejectClosed
	}
	r.Rejected(why)
	return err
}
