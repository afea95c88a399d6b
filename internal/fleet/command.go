package fleet

import (
	"maps"
	"slices"
	"time"
)

// RegisterRunner is the type of the command that makes an agent register its
// runner. The controller requests it by itself.
const RegisterRunner = "register_runner"

// CommandTypes lists the types that the agent protocol defines. Commands of any other valid
// type are delivered as well.
var CommandTypes = []string{RegisterRunner, "drain", "shutdown", "update_config", "set_log_level"}

// RegistrationTokenParam names the parameter of a RegisterRunner command that is filled in
// at delivery and never stored.
const RegistrationTokenParam = "registration_token"

// CommandState is where a command is in its lifecycle.
type CommandState string

// The states of a command. All but Pending and Delivered are terminal.
const (
	Pending   CommandState = "PENDING"
	Delivered CommandState = "DELIVERED"
	Succeeded CommandState = "SUCCEEDED"
	Failed    CommandState = "FAILED"
	TimedOut  CommandState = "TIMED_OUT"
	Expired   CommandState = "EXPIRED"
	Cancelled CommandState = "CANCELLED"
)

// CommandStates lists every state, in the order of the lifecycle.
var CommandStates = []CommandState{Pending, Delivered, Succeeded, Failed, TimedOut, Expired, Cancelled}

// Terminal reports whether the state is final.
func (s CommandState) Terminal() bool { return s != Pending && s != Delivered }

// Params are the parameters of a command.
type Params struct {
	Strings map[string]string `json:"strings,omitempty"`
	Ints    map[string]int64  `json:"ints,omitempty"`
	Bools   map[string]bool   `json:"bools,omitempty"`
	List    []string          `json:"list,omitempty"`
}

// Size returns roughly how many bytes the parameters take.
func (p Params) Size() (n int) {
	for name, value := range p.Strings {
		n += len(name) + len(value)
	}
	for name := range p.Ints {
		n += len(name) + 8
	}
	for name := range p.Bools {
		n += len(name) + 1
	}
	for _, value := range p.List {
		n += len(value)
	}
	return n
}

// Equal reports whether both have the same parameters.
func (p Params) Equal(o Params) bool {
	return maps.Equal(p.Strings, o.Strings) && maps.Equal(p.Ints, o.Ints) &&
		maps.Equal(p.Bools, o.Bools) && slices.Equal(p.List, o.List)
}

// Ack is an agent's answer to a command.
type Ack struct {
	CommandID CommandID         `json:"command_id"`
	Success   bool              `json:"success"`
	Message   string            `json:"message,omitempty"`
	Result    map[string]string `json:"result,omitempty"`
}

// Command is a request of an operator or the controller to one VM, with its outcome.
type Command struct {
	// Seq is the order of acceptance in the fleet, assigned by the database. Version counts
	// how often the record was written.
	Seq     int64 `json:"-"`
	Version int64 `json:"-"`

	ID     CommandID `json:"id"`
	VM     VMID      `json:"vm"`
	Type   string    `json:"type"`
	Params Params    `json:"params,omitzero"`
	// SecretSum is set once the secrets among the parameters were dropped, because the
	// command has ended: it distinguishes them from others.
	SecretSum string `json:"secret_sum,omitempty"`
	// CreatedAt is the time that the caller gave, in whole seconds.
	CreatedAt  time.Time     `json:"created_at"`
	AcceptedAt time.Time     `json:"accepted_at"`
	ExpiresAt  time.Time     `json:"expires_at"`
	AckTimeout time.Duration `json:"ack_timeout"`
	// MaxDeliveries is how many deliveries the command may have; 0, in records of earlier
	// versions, means DefaultMaxDeliveries.
	MaxDeliveries int `json:"max_deliveries,omitempty"`

	State CommandState `json:"state"`
	// Last is the latest delivery; its At is zero before the first.
	Last Delivery `json:"last,omitzero"`
	// Attempts counts the deliveries that were written to the agent in full, and those that
	// may have been when the controller crashed.
	Attempts int `json:"attempts,omitempty"`
	// DueAt is when Expire next has an effect; zero once the command is terminal.
	DueAt      time.Time `json:"due_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Ack        *Ack      `json:"ack,omitempty"`
	AckedAt    time.Time `json:"acked_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`

	// RequestedBy and CancelledBy are the names of the principals who have sent and cancelled
	// it; empty if that was the controller itself, or nobody had to authenticate.
	RequestedBy string `json:"requested_by,omitempty"`
	CancelledBy string `json:"cancelled_by,omitempty"`

	// Trace identifies the span of the acceptance, as a W3C traceparent; empty if it was not
	// traced. No rule depends on it.
	Trace string `json:"trace,omitempty"`

	// Waiting is what an open command waited for when it was read. It is derived for
	// readers and never stored.
	Waiting Waiting `json:"-"`
}

// SameRequest reports whether o, which is new, makes the same request as c: the same VM, type
// and parameters. If c has ended, one in 65,536 other secrets is taken for the same.
func (c Command) SameRequest(o Command) bool {
	return c.VM == o.VM && c.Type == o.Type && c.sameParams(o.Params)
}

// Outline returns c without its parameters, which can be large.
func (c Command) Outline() Command {
	c.Params, c.SecretSum = Params{}, ""
	return c
}

// MarkAcked applies the agent's ack. The first ack of a command that has ended is kept on
// its record, without any other effect. It returns ErrNotDelivered for a command that was
// never delivered.
func (c Command) MarkAcked(a Ack, now time.Time) (Command, error) {
	if c.State == Pending {
		return c, ErrNotDelivered
	}
	if c.Ack == nil && c.Attempts > 0 {
		c.Ack, c.AckedAt = &a, now
	}
	if c.State.Terminal() {
		return c, nil
	}
	if a.Success {
		return c.end(Succeeded, "the agent acked it", now), nil
	}
	return c.end(Failed, "the agent answered that it failed", now), nil
}

// MarkProven ends a delivered command as succeeded on evidence other than an ack. It
// returns ErrNotDelivered when the command is not in state Delivered.
func (c Command) MarkProven(evidence string, now time.Time) (Command, error) {
	if c.State != Delivered {
		return c, ErrNotDelivered
	}
	return c.end(Succeeded, evidence, now), nil
}

// MarkUnneeded ends c because its purpose has been achieved, as evidence shows: as
// succeeded when it was delivered, otherwise as cancelled.
func (c Command) MarkUnneeded(evidence string, now time.Time) Command {
	if proven, err := c.MarkProven(evidence, now); err == nil {
		return proven
	}
	return c.end(Cancelled, "no longer needed: "+evidence, now)
}

// Cancel cancels c. Cancelling twice is not an error; it returns ErrEnded for a command
// that has ended otherwise.
func (c Command) Cancel(now time.Time) (Command, error) {
	switch {
	case c.State == Cancelled:
		return c, nil
	case c.State.Terminal():
		return c, ErrEnded
	case c.State == Delivered:
		return c.end(Cancelled, "cancelled after it was delivered: the agent may have acted on it", now), nil
	default:
		return c.end(Cancelled, "cancelled before it was delivered", now), nil
	}
}

// end ends c. Its secrets are not needed any more.
func (c Command) end(s CommandState, reason string, now time.Time) Command {
	c.State, c.Reason, c.FinishedAt, c.DueAt = s, reason, now, time.Time{}
	return c.withoutSecrets()
}
