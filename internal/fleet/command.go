package fleet

import (
	"maps"
	"slices"
	"time"
)

// RegisterRunner is the type of the command that makes an agent register its
// runner. The controller requests it by itself.
const RegisterRunner = "register_runner"

// RegistrationTokenParam names the parameter of a RegisterRunner command that
// is filled in at delivery, and is never stored.
const RegistrationTokenParam = "registration_token"

// CommandState is where a command is in its life.
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

// CommandStates lists every state, in the order of a command's life.
var CommandStates = []CommandState{Pending, Delivered, Succeeded, Failed, TimedOut, Expired, Cancelled}

// Terminal reports whether the state is one that never changes.
func (s CommandState) Terminal() bool { return s != Pending && s != Delivered }

// Params are the parameters of a command.
type Params struct {
	Strings map[string]string `json:"strings,omitempty"`
	Ints    map[string]int64  `json:"ints,omitempty"`
	Bools   map[string]bool   `json:"bools,omitempty"`
	List    []string          `json:"list,omitempty"`
}

// Size is how many bytes the parameters take, roughly.
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

// Command is an operator's or the controller's intent for one VM, with
// everything that became of it.
type Command struct {
	// Seq is the order of acceptance over the fleet, and Version counts how often the
	// record was written. The database assigns Seq.
	Seq     int64 `json:"-"`
	Version int64 `json:"-"`

	ID     CommandID `json:"id"`
	VM     VMID      `json:"vm"`
	Type   string    `json:"type"`
	Params Params    `json:"params,omitzero"`
	// CreatedAt is the caller's word, in whole seconds.
	CreatedAt  time.Time     `json:"created_at"`
	AcceptedAt time.Time     `json:"accepted_at"`
	ExpiresAt  time.Time     `json:"expires_at"`
	AckTimeout time.Duration `json:"ack_timeout"`
	// MaxDeliveries is how many deliveries it may have; 0, in records of earlier
	// versions, is DefaultMaxDeliveries.
	MaxDeliveries int `json:"max_deliveries,omitempty"`

	State CommandState `json:"state"`
	// Last is the latest delivery; its At is zero before the first.
	Last Delivery `json:"last,omitzero"`
	// Attempts counts the deliveries that were written to the agent in full, and
	// those of which a crash of the controller left that in doubt.
	Attempts int `json:"attempts,omitempty"`
	// DueAt is when Lapsed has something to say, unless the command moves on
	// before; zero once it is terminal.
	DueAt      time.Time `json:"due_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Ack        *Ack      `json:"ack,omitempty"`
	AckedAt    time.Time `json:"acked_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`

	// Waiting is what an open command waited for when it was read. It is derived for
	// those who ask, and never stored.
	Waiting Waiting `json:"-"`
}

// SameRequest reports whether o asks for the same as c: the same VM, type and
// parameters.
func (c Command) SameRequest(o Command) bool {
	return c.VM == o.VM && c.Type == o.Type && c.Params.Equal(o.Params)
}

// Outline returns c without what can be large: its parameters.
func (c Command) Outline() Command {
	c.Params = Params{}
	return c
}

// MarkAcked takes the agent's answer. An ack for a command that has ended is kept
// on its record, if it is the first, and changes nothing else. It returns
// ErrNotDelivered for a command that was never handed out.
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

// MarkProven ends a delivered command as succeeded on evidence other than an ack.
// It returns ErrNotDelivered when the command is not out.
func (c Command) MarkProven(evidence string, now time.Time) (Command, error) {
	if c.State != Delivered {
		return c, ErrNotDelivered
	}
	return c.end(Succeeded, evidence, now), nil
}

// MarkUnneeded ends c because what it is for is reached already, as evidence shows: as
// succeeded when it is out, and else as cancelled.
func (c Command) MarkUnneeded(evidence string, now time.Time) Command {
	if proven, err := c.MarkProven(evidence, now); err == nil {
		return proven
	}
	return c.end(Cancelled, "not needed any more: "+evidence, now)
}

// Cancel takes c back. Cancelling twice is not an error; it returns ErrEnded for
// a command that has ended in another way.
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

func (c Command) end(s CommandState, reason string, now time.Time) Command {
	c.State, c.Reason, c.FinishedAt, c.DueAt = s, reason, now, time.Time{}
	return c
}
