package store

import (
	"fmt"
	"strings"
	"time"
)

// Class is a class of rows.
type Class string

// The classes of rows.
const (
	ClassVMs        Class = "vms"
	ClassCommands   Class = "commands"
	ClassEvents     Class = "events"
	ClassHeartbeats Class = "heartbeats"
	ClassChanges    Class = "changes"
)

// Place is where a row is: its class, and VMRow.Row or the Seq of the others.
type Place struct {
	Class Class
	Row   int64
}

// DamagedError occurs when rows were read, and hold what no commit has written, such as a
// text in place of a number. It is never about a read that failed: those may succeed
// later. It names all such rows that the call has met. Once they are set aside, the call
// can be made again.
type DamagedError struct{ Places []Place }

// Error names the places.
func (e *DamagedError) Error() string {
	names := make([]string, len(e.Places))
	for i, p := range e.Places {
		names[i] = fmt.Sprintf("%s %d", p.Class, p.Row)
	}
	return "damaged rows: " + strings.Join(names, ", ")
}

// Check returns what is wrong with a row that a driver can read; nil for nothing. A
// function that is missing finds nothing wrong.
type Check struct {
	VM         func(VMRow) error
	Command    func(CommandRow) error
	Event      func(EventRow) error
	Heartbeats func(HeartbeatRow) error
	Change     func(ChangeRow) error
}

// Fault returns what is wrong with a row of one of the classes.
func (c Check) Fault(row any) error {
	switch row := row.(type) {
	case VMRow:
		return fault(c.VM, row)
	case CommandRow:
		return fault(c.Command, row)
	case EventRow:
		return fault(c.Event, row)
	case HeartbeatRow:
		return fault(c.Heartbeats, row)
	case ChangeRow:
		return fault(c.Change, row)
	default:
		return nil
	}
}

func fault[R any](check func(R) error, row R) error {
	if check == nil {
		return nil
	}
	return check(row)
}

// Aside is a row that was set aside.
type Aside struct {
	// Number is the order in which rows were set aside, from one; no number is given
	// twice.
	Number int64
	Place
	// ID is that of the VM or command, and VM the VM that the row was about: empty when
	// the row does not say so in a readable way, or is about several.
	ID, VM string
	// Why is what was wrong.
	Why string
	At  time.Time
}

// Asides are rows that were set aside, by their ids: the latest Number of each.
type Asides struct{ VMs, Commands map[string]int64 }
