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
// is put in while it is being sent, and is never stored.
const RegistrationTokenParam = "registration_token"

// proofTimeout is how long a RegisterRunner command handed out to a poll may go
// without its proof. Agents that poll never ack; the event runner_registered
// counts instead, and a runner takes minutes, not seconds, to register.
const proofTimeout = 5 * time.Minute

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

// Route is the way something passes between an agent and the controller.
type Route string

// The ways between an agent and the controller.
const (
	Stream Route = "stream"
	HTTP   Route = "http"
)

// Delivery is one attempt to hand a command to its agent.
type Delivery struct {
	// Via is the route it takes.
	Via Route `json:"via,omitempty"`
	// Epoch is the session it is sent on; over HTTP, the VM's newest.
	Epoch Epoch `json:"epoch,omitempty"`
	// Boot is the boot of the VM it is sent to.
	Boot int64 `json:"boot,omitempty"`
	// At is when.
	At time.Time `json:"at,omitzero"`
}

// Command is an operator's or the controller's intent for one VM, with
// everything that became of it.
type Command struct {
	// Seq is the order of acceptance over the fleet; the store gives it.
	Seq    int64     `json:"-"`
	ID     CommandID `json:"id"`
	VM     VMID      `json:"vm"`
	Type   string    `json:"type"`
	Params Params    `json:"params,omitzero"`
	// CreatedAt is the caller's word, in whole seconds.
	CreatedAt  time.Time     `json:"created_at"`
	AcceptedAt time.Time     `json:"accepted_at"`
	ExpiresAt  time.Time     `json:"expires_at"`
	AckTimeout time.Duration `json:"ack_timeout"`

	State CommandState `json:"state"`
	// Last is the latest delivery; its At is zero before the first.
	Last     Delivery `json:"last,omitzero"`
	Attempts int      `json:"attempts,omitempty"`
	// DueAt is when Lapsed has something to say, unless the command moves on
	// before; zero once it is terminal.
	DueAt      time.Time `json:"due_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Ack        *Ack      `json:"ack,omitempty"`
	AckedAt    time.Time `json:"acked_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
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

// Deliverable reports whether d may be the next delivery of c. A pending
// command may go any way. One that is out goes out again on a newer session, or
// to a poll once the stream it went out on is over; what was handed to a poll
// is not handed out again in that boot.
func (c Command) Deliverable(d Delivery) bool {
	if c.State == Pending {
		return d.At.Before(c.ExpiresAt)
	}
	if c.State != Delivered || !d.At.Before(c.DueAt) {
		return false
	}
	newer := d.Via == HTTP || d.Epoch > c.Last.Epoch
	return newer && (c.Last.Via == Stream || d.Boot > c.Last.Boot)
}

// Delivered claims c for a delivery that is about to be made. It returns
// ErrNotDue when c may not be delivered so.
func (c Command) Delivered(d Delivery) (Command, error) {
	if !c.Deliverable(d) {
		return c, ErrNotDue
	}
	timeout := c.AckTimeout
	if d.Via == HTTP && c.Type == RegisterRunner {
		timeout = max(timeout, proofTimeout)
	}
	c.State = Delivered
	c.Last = d
	c.Attempts++
	c.DueAt = d.At.Add(timeout)
	return c, nil
}

// Offered claims c, as it is accepted, for the session that v has live: nothing
// of v is before it. What is to be put in while a command is sent may not be
// there to be had, so a RegisterRunner stays pending until it is.
func (c Command) Offered(v VM, now time.Time) Command {
	if !v.Connected || c.Type == RegisterRunner {
		return c
	}
	claimed, err := c.Delivered(Delivery{Via: Stream, Epoch: v.Epoch, Boot: v.Boot, At: now})
	if err != nil {
		return c
	}
	return claimed
}

// Out reports whether c is out on the session with this epoch.
func (c Command) Out(e Epoch) bool {
	return c.State == Delivered && c.Last.Via == Stream && c.Last.Epoch == e
}

// Acked takes the agent's answer. An ack for a command that has ended is kept
// on its record, if it is the first, and changes nothing else. It returns
// ErrNotDelivered for a command that was never handed out.
func (c Command) Acked(a Ack, now time.Time) (Command, error) {
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
		return c.ended(Succeeded, "the agent acked it", now), nil
	}
	return c.ended(Failed, "the agent answered that it failed", now), nil
}

// Proven ends a delivered command as succeeded on evidence other than an ack.
// It returns ErrNotDelivered when the command is not out.
func (c Command) Proven(evidence string, now time.Time) (Command, error) {
	if c.State != Delivered {
		return c, ErrNotDelivered
	}
	return c.ended(Succeeded, evidence, now), nil
}

// SessionEnded stops the ack clock of a command that is out on a session that
// is over: until a new session delivers it again, only its deadline counts.
// Else a controller that was down for longer than the ack timeout would give up
// a command that it had claimed and never sent.
func (c Command) SessionEnded(e Epoch) Command {
	if c.State == Delivered && c.Last.Via == Stream && c.Last.Epoch <= e {
		c.DueAt = c.ExpiresAt
	}
	return c
}

// Lapsed ends c if its time is up: Expired when it was never delivered before
// its deadline, TimedOut when it was and no ack came.
func (c Command) Lapsed(now time.Time) Command {
	switch {
	case c.State.Terminal() || now.Before(c.DueAt):
		return c
	case c.State == Pending:
		return c.ended(Expired, "not delivered before its deadline", now)
	default:
		return c.ended(TimedOut, "no ack in time", now)
	}
}

// Cancelled takes c back. Cancelling twice is no error; it returns ErrEnded for
// a command that has ended in another way.
func (c Command) Cancelled(now time.Time) (Command, error) {
	switch {
	case c.State == Cancelled:
		return c, nil
	case c.State.Terminal():
		return c, ErrEnded
	case c.State == Delivered:
		return c.ended(Cancelled, "cancelled after it was delivered: the agent may have acted on it", now), nil
	default:
		return c.ended(Cancelled, "cancelled before it was delivered", now), nil
	}
}

func (c Command) ended(s CommandState, reason string, now time.Time) Command {
	c.State, c.Reason, c.FinishedAt, c.DueAt = s, reason, now, time.Time{}
	return c
}
