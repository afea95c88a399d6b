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
	ClassTokens     Class = "tokens"
	ClassAudit      Class = "audit"
)

// Place identifies a row: its class, and its Row or Seq.
type Place struct {
	Class Class
	Row   int64
}

// DamagedError occurs when rows were read and contain something that no commit has written,
// such as a text in place of a number. It never means that a read failed, which may succeed
// later. It names all such rows that the call has found. Once they are set aside, the call
// can be repeated.
type DamagedError struct{ Places []Place }

// Error names the places.
func (e *DamagedError) Error() string {
	names := make([]string, len(e.Places))
	for i, p := range e.Places {
		names[i] = fmt.Sprintf("%s %d", p.Class, p.Row)
	}
	return "damaged rows: " + strings.Join(names, ", ")
}

// Check returns the reason why a row that a driver can read is damaged; nil if it is not. A
// nil function accepts every row.
type Check struct {
	VM         func(VMRow) error
	Command    func(CommandRow) error
	Event      func(EventRow) error
	Heartbeats func(HeartbeatRow) error
	Change     func(ChangeRow) error
	Token      func(TokenRow) error
	Audit      func(AuditRow) error
}

// Fault returns the reason why a row of one of the classes is damaged.
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
	case TokenRow:
		return fault(c.Token, row)
	case AuditRow:
		return fault(c.Audit, row)
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
	// Number is the order in which rows were set aside, from one; numbers are never reused.
	Number int64
	Place
	// ID is the id of the VM, command or token, and VM the VM that the row is about: empty if the
	// row does not contain it in readable form, or is about several VMs.
	ID, VM string
	// Why is the reason.
	Why string
	At  time.Time
}

// Asides are rows that were set aside, by id: the latest Number of each.
type Asides struct{ VMs, Commands map[string]int64 }
