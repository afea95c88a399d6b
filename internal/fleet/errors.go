package fleet

import (
	"errors"
	"fmt"
	"time"
)

// The errors of the domain. Every layer returns these, wrapped; only package rpc turns them
// into status codes.
var (
	// ErrNotFound occurs when the VM or record named in a request does not exist.
	ErrNotFound = errors.New("not found")
	// ErrIDTaken occurs when a command id is in use for another command.
	ErrIDTaken = errors.New("command.id is in use for another command")
	// ErrEnded occurs when a command that has already ended is cancelled.
	ErrEnded = errors.New("the command has already ended")
	// ErrNotDelivered occurs when a pending command is acked.
	ErrNotDelivered = errors.New("the command is not delivered")
	// ErrNotDue occurs when a command may not be delivered now: it has ended, its deadline
	// has passed, or it is already in flight.
	ErrNotDue = errors.New("the command is not due")
	// ErrNothingDue occurs when a VM has no command that may be delivered now.
	ErrNothingDue = errors.New("nothing due")
	// ErrSuperseded occurs when a newer session has superseded this one.
	ErrSuperseded = errors.New("a newer session has superseded this one")
	// ErrUnavailable occurs when the store cannot be read or written at the moment: a full
	// disk, a lost database, a shutdown in progress.
	ErrUnavailable = errors.New("the store cannot be read or written at the moment")
	// ErrStopping occurs when the controller is shutting down. It wraps ErrUnavailable.
	ErrStopping error = &unavailable{"the controller is stopping"}
	// ErrDatabaseRemoved occurs when the database files are no longer at the path where
	// they were opened. It wraps ErrUnavailable.
	ErrDatabaseRemoved error = &unavailable{"the database was removed, renamed or replaced while the controller runs"}
	// ErrCursorExpired occurs when changes after a cursor are no longer kept.
	ErrCursorExpired = errors.New("the changes after this cursor are no longer kept")
	// ErrThrottled occurs when a VM exceeds its report rate.
	ErrThrottled = errors.New("the VM reports more than --report-rate allows")
	// ErrDamaged occurs when a record cannot be read. Retrying does not help.
	ErrDamaged = errors.New("the record is damaged and was set aside")
	// ErrNoToken occurs when no registration token is available at the moment.
	ErrNoToken = errors.New("no registration token is available")
)

// unavailable is an ErrUnavailable with its own text.
type unavailable struct{ text string }

func (e *unavailable) Error() string { return e.text }

func (*unavailable) Unwrap() error { return ErrUnavailable }

// TokenError is ErrNoToken with the reason: which source and what is wrong with it, never a
// token.
type TokenError struct {
	Why string
	// Cause is the underlying error.
	Cause error
}

// Error includes the reason.
func (e *TokenError) Error() string { return ErrNoToken.Error() + ": " + e.Why }

// Unwrap returns ErrNoToken and the cause.
func (e *TokenError) Unwrap() []error { return []error{ErrNoToken, e.Cause} }

// ThrottledError is ErrThrottled with how long the VM must wait before it may report that
// much.
type ThrottledError struct{ After time.Duration }

// Error returns the text of ErrThrottled.
func (e *ThrottledError) Error() string { return ErrThrottled.Error() }

// Unwrap returns ErrThrottled.
func (e *ThrottledError) Unwrap() error { return ErrThrottled }

// FieldError names the field of a request and the rule that it violates.
type FieldError struct {
	// Field is the field's path as the caller wrote it, such as command.type.
	Field string
	// Rule is what the field must be. It omits the value, so that invalid values are not
	// repeated in logs and answers.
	Rule string
}

// Error returns field and rule.
func (e *FieldError) Error() string { return e.Field + " " + e.Rule }

// Invalid returns a FieldError; rule is a format string.
func Invalid(field, rule string, args ...any) error {
	return &FieldError{Field: field, Rule: fmt.Sprintf(rule, args...)}
}
