package fleet

import (
	"errors"
	"fmt"
	"time"
)

// The errors of the domain. Every layer returns these, wrapped; only package
// rpc turns them into codes.
var (
	// ErrNotFound occurs when what was named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrIDTaken occurs when a command id is in use for another command.
	ErrIDTaken = errors.New("command.id is in use for another command")
	// ErrEnded occurs when a command that has already ended is cancelled.
	ErrEnded = errors.New("the command has already ended")
	// ErrNotDelivered occurs when a command that is not out with an agent is
	// acked or proven.
	ErrNotDelivered = errors.New("the command is not delivered")
	// ErrNotDue occurs when a command may not be delivered now: it has ended,
	// its deadline has passed, or it is out already.
	ErrNotDue = errors.New("the command is not due")
	// ErrNothingDue occurs when a VM has no command to be delivered now.
	ErrNothingDue = errors.New("nothing due")
	// ErrSuperseded occurs when a newer session has superseded this one.
	ErrSuperseded = errors.New("a newer session has superseded this one")
	// ErrUnavailable occurs when nothing can be stored or read at the moment: a
	// full disk, a lost database, a stop in progress.
	ErrUnavailable = errors.New("nothing can be stored or read at the moment")
	// ErrStopping occurs when the controller is being stopped. It wraps
	// ErrUnavailable.
	ErrStopping = fmt.Errorf("%w: the controller is stopping", ErrUnavailable)
	// ErrDatabaseRemoved occurs when the files of the database are not where they were
	// opened. It is an ErrUnavailable.
	ErrDatabaseRemoved = fmt.Errorf("%w: the database was removed, renamed or replaced while the controller runs", ErrUnavailable)
	// ErrCursorExpired occurs when changes after a cursor are no longer kept.
	ErrCursorExpired = errors.New("the changes after this cursor are no longer kept")
	// ErrThrottled occurs when a VM reports more than it may.
	ErrThrottled = errors.New("the VM reports more than --report-rate allows")
	// ErrDamaged occurs when the record of what was named cannot be read: retrying is
	// useless.
	ErrDamaged = errors.New("the record is damaged and was set aside")
	// ErrNoToken occurs when no registration token is available at the moment.
	ErrNoToken = errors.New("no registration token is available")
)

// TokenError is ErrNoToken with why: what the source is and what is wrong with
// it, never a token.
type TokenError struct {
	Why string
	// Cause is the error behind it.
	Cause error
}

// Error says why.
func (e *TokenError) Error() string { return ErrNoToken.Error() + ": " + e.Why }

// Unwrap returns ErrNoToken and the cause.
func (e *TokenError) Unwrap() []error { return []error{ErrNoToken, e.Cause} }

// ThrottledError is ErrThrottled with how long it takes until the VM may report that
// much.
type ThrottledError struct{ After time.Duration }

// Error is that of ErrThrottled.
func (e *ThrottledError) Error() string { return ErrThrottled.Error() }

// Unwrap returns ErrThrottled.
func (e *ThrottledError) Unwrap() error { return ErrThrottled }

// FieldError says which field of a request breaks which rule.
type FieldError struct {
	// Field is the field's path as the caller wrote it, such as command.type.
	Field string
	// Rule is what the field must be, without the value it had: a value that
	// breaks a rule is not repeated into logs and answers.
	Rule string
}

// Error says field and rule.
func (e *FieldError) Error() string { return e.Field + " " + e.Rule }

// Invalid returns a FieldError; the rule is formatted.
func Invalid(field, rule string, args ...any) error {
	return &FieldError{Field: field, Rule: fmt.Sprintf(rule, args...)}
}
