package engine

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// tally is what the inputs of a group do, which is counted once it is durable. The zero value
// is empty.
type tally struct {
	steps         []commandStep
	registrations [outcomes]int
	events        []string // their types
	heartbeats    int
}

// commandStep is what an input does to a command.
type commandStep struct {
	kind                string
	accepted, delivered bool
	ended               fleet.CommandState // empty if it does not end
	// sentAfter is the time from the acceptance to the first delivery, and ackedAfter that
	// from the delivery to the ack; negative for none.
	sentAfter, ackedAfter time.Duration
}

// add adds the outcome of an input, which was reduced in the state before.
func (t *tally) add(before *fleet.State, out *fleet.Outcome) {
	if out.Event != nil {
		t.events = append(t.events, out.Event.Type)
	}
	for _, n := range out.Notices {
		if n.Kind == fleet.NoticeRegistrationFailed {
			t.registrations[outcomeFailed]++
		}
	}
	was, is := &before.VM.Registration, &out.State.VM.Registration
	if is.State == fleet.Registered && was.State != fleet.Registered {
		t.registrations[outcomeRegistered]++
	}
	for i := range out.Commands {
		c := &out.Commands[i]
		old, known := before.Command(c.ID)
		if !known {
			old = fleet.Command{}
		}
		step := stepOf(&old, c)
		t.steps = append(t.steps, step)
		switch attempt := was.State == fleet.Requested && was.Command == c.ID; {
		case !attempt:
		case step.ended == fleet.Expired:
			t.registrations[outcomeExpired]++
		case step.ended == fleet.Cancelled && is.State == fleet.RegFailed:
			t.registrations[outcomeCancelled]++
		}
	}
}

// stepOf returns the step from old, the zero Command for a new one, to c.
func stepOf(old, c *fleet.Command) commandStep {
	s := commandStep{kind: c.Type, accepted: old.ID == "", delivered: c.Attempts > old.Attempts, sentAfter: -1, ackedAfter: -1}
	if s.delivered && old.Last.At.IsZero() {
		s.sentAfter = max(0, c.Last.At.Sub(c.AcceptedAt))
	}
	if c.State.Terminal() && !old.State.Terminal() {
		if s.ended = c.State; !c.AckedAt.IsZero() {
			s.ackedAfter = max(0, c.AckedAt.Sub(c.Last.At))
		}
	}
	return s
}
