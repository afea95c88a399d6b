package fleet

import (
	"slices"
	"time"
)

// Queue names one of the queues of a VM's open commands. Reduce needs only the first few
// commands of each.
type Queue string

// The queues of a VM.
const (
	// QueueDelivered contains delivered commands.
	QueueDelivered Queue = "out"
	// QueuePlain contains pending commands that need no token.
	QueuePlain Queue = "plain"
	// QueueToken contains pending commands that need a registration token.
	QueueToken Queue = "token"
	// QueueNone is the queue of commands that have ended.
	QueueNone Queue = ""
)

// Queues lists every queue but QueueNone.
var Queues = []Queue{QueueDelivered, QueuePlain, QueueToken}

// QueueDepth is how many commands of each queue a State needs. One would be enough except
// for QueueDelivered: in a new boot of a VM that polls, the commands delivered in earlier
// boots are still in that queue. It holds at most QueueDepth, so a State has all of them.
const QueueDepth = 8

// Queue returns the queue that c is in.
func (c Command) Queue() Queue {
	switch {
	case c.State.Terminal():
		return QueueNone
	case c.State == Delivered:
		return QueueDelivered
	case c.NeedsToken():
		return QueueToken
	default:
		return QueuePlain
	}
}

// NeedsToken reports whether c gets a registration token when it is delivered.
func (c Command) NeedsToken() bool { return c.Type == RegisterRunner }

// State is what Reduce needs to know about a VM. It is never changed in place: a later State
// shares no memory with it that has changed.
type State struct {
	// VM is the zero VM if it was never seen. If its record was lost, it is zero except for
	// Epoch: no session of the VM had a higher one.
	VM VM
	// Commands are open commands, oldest first: at least the first QueueDepth of each
	// queue.
	Commands []Command
	// Named is the command that an input names, if it exists and is not among Commands: it
	// has ended, or is too far back in its queue.
	Named Command
}

// Known reports whether the VM was ever seen.
func (s State) Known() bool { return s.VM.ID != "" }

// Command returns the command with this id, if the state has it.
func (s State) Command(id CommandID) (Command, bool) {
	if i := s.index(id); i >= 0 {
		return s.Commands[i], true
	}
	return s.Named, s.Named.ID == id && id != ""
}

func (s State) index(id CommandID) int {
	return slices.IndexFunc(s.Commands, func(c Command) bool { return c.ID == id })
}

// with returns s after c was changed or added.
func (s State) with(c Command) State {
	i := s.index(c.ID)
	switch {
	case i < 0 && c.State.Terminal():
		s.Named = c
	case i < 0 && s.Named.ID == c.ID && c.ID != "": // it is too far back in its queue
		s.Named = c
	case i < 0:
		s.Commands = append(slices.Clip(s.Commands), c)
	case !c.State.Terminal():
		s.Commands = slices.Clone(s.Commands)
		s.Commands[i] = c
	case len(s.Commands) == 1:
		s.Commands = nil // without the capacity for the one that has ended
	default:
		s.Commands = slices.Delete(slices.Clone(s.Commands), i, i+1)
	}
	return s
}

// LeaseRequest describes a delivery that is about to be made.
type LeaseRequest struct {
	Via Route
	// Started is whether the delivery is in the answer to a vm_started over HTTP.
	Started bool
	// Epoch is the session that asks, and Written the last command that was written on it,
	// empty for none; not used over HTTP.
	Epoch   Epoch
	Written CommandID
	// WithoutToken leaves out commands that need a registration token.
	WithoutToken bool
	At           time.Time
}

// Next returns the command that this request may lease. It returns ErrNothingDue when there
// is none, and for a poll of a VM that has a session; ErrSuperseded when a newer session
// has superseded the one that asks; and ErrNotFound when the VM has neither this session
// nor another, because its record was lost.
func (s State) Next(r LeaseRequest) (Command, error) {
	d, err := s.VM.delivery(r)
	switch {
	case err != nil && r.Via == Stream && s.VM.ConnectedAt.IsZero(): // no session has superseded it
		return Command{}, ErrNotFound
	case err != nil:
		return Command{}, err
	}
	return s.next(d, r.Written, r.WithoutToken)
}

// next is NextDelivery, but returns ErrNothingDue when QueueDelivered is full, or when the
// command waits for the agent to report its runner.
func (s State) next(d Delivery, written CommandID, withoutToken bool) (Command, error) {
	next, err := NextDelivery(s.Commands, d, written, withoutToken)
	switch {
	case err != nil:
		return next, err
	case !s.VM.AwaitsRunnerUntil.IsZero() && next.repeatsRegistration():
		return Command{}, ErrNothingDue
	case next.State == Delivered:
		return next, nil
	}
	n := 0
	for _, c := range s.Commands {
		if c.State == Delivered {
			n++
		}
	}
	if n >= QueueDepth {
		return Command{}, ErrNothingDue
	}
	return next, nil
}

// repeatsRegistration reports whether c, on a new session, would register a runner that may
// already be registered.
func (c Command) repeatsRegistration() bool {
	return c.NeedsToken() && c.Attempts > 0 && c.Last.Via == Stream
}

// delivery returns the requested delivery, if the VM's state permits it. A VM that was
// never seen is in its first boot.
func (v VM) delivery(r LeaseRequest) (Delivery, error) {
	switch {
	case r.Via == Stream && r.Epoch != v.Epoch:
		return Delivery{}, ErrSuperseded
	case r.Via == HTTP && v.Connected:
		return Delivery{}, ErrNothingDue
	default:
		return Delivery{Via: r.Via, Epoch: v.Epoch, Boot: max(1, v.Boot), At: r.At, Started: r.Started}, nil
	}
}
