package fleet

import "time"

// Change is one durable step of the fleet. Exactly one of VM, Command and Event
// is set.
type Change struct {
	// Seq rises with every change; it is what a cursor points at.
	Seq int64
	At  time.Time
	// Subject is the VM that the change is about.
	Subject VMID
	VM      *VM
	// Command is without its parameters.
	Command *Command
	Event   *Event
}
