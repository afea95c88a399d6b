package fleet

import "time"

// Change is one entry of the change log. Exactly one of VM, Command and Event is set.
type Change struct {
	// Seq increases with every change; cursors point at it.
	Seq int64
	At  time.Time
	// Subject is the VM that the change is about.
	Subject VMID
	// Pool is the pool that the VM is in after the commit of the change. Left is the one that
	// the VM was in before: set in a change of the VM that moves it from one to another, or to
	// none.
	Pool, Left string
	VM         *VM
	// Command lacks its parameters.
	Command *Command
	Event   *Event
	// RequestID identifies the request that made the change, for the log; empty if none did,
	// or if the change was read from the database.
	RequestID string
}

// Step is what a change did to its command.
type Step string

// The steps of a command.
const (
	StepAccepted  Step = "accepted"
	StepDelivered Step = "delivered"
	// StepNotWritten is the return to pending after a delivery that was not completed.
	StepNotWritten Step = "not written"
	StepEnded      Step = "ended"
	// StepLateAck is an ack that arrived after the end.
	StepLateAck Step = "late ack"
	// StepNone is everything else, such as the end of the session.
	StepNone Step = ""
)

// Step returns what the change did to its command; StepNone when the change is not about a
// command.
func (c Change) Step() Step {
	cmd := c.Command
	switch {
	case cmd == nil:
		return StepNone
	case cmd.State == Pending && c.At.Equal(cmd.AcceptedAt):
		return StepAccepted
	case cmd.State == Pending:
		return StepNotWritten
	case cmd.State == Delivered && c.At.Equal(cmd.Last.At):
		return StepDelivered
	case cmd.State == Delivered:
		return StepNone
	case c.At.Equal(cmd.FinishedAt):
		return StepEnded
	case cmd.Ack != nil:
		return StepLateAck
	default:
		return StepNone
	}
}
