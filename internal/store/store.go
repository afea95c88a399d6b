// Package store is the contract of storage drivers: rows of columns that queries need,
// an opaque document and a version. It knows no rule of the fleet. Package storetest has
// the suite that every driver passes.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Driver keeps rows in a database. It is safe for concurrent use, also by several
// processes where the database is.
//
// A row is a few columns that queries need, a document, and a version. A driver
// knows nothing of what columns and documents mean: it returns them as they were
// committed. Times are in UTC, precise to the nanosecond; a zero time is none, and
// an empty document is the same as none. A driver keeps nothing that a caller gave
// it, and what it returns belongs to the caller.
//
// A call whose context is done before it begins returns an error and does nothing.
//
// Every method may fail; what an error is about is for people to read, except for
// those that are named here.
type Driver interface {
	// ID names the database: a number of one means nothing in another.
	ID() string
	// Load returns the rows that are there of those that k names, as of one moment.
	Load(ctx context.Context, k Keys) (Rows, error)
	// Commit makes all of the writes durable, or none. It returns a *ConflictError
	// when a row is not as it was loaded. After any other error it is in doubt whether
	// the writes were made: what is there must be loaded again.
	Commit(ctx context.Context, w Writes) (Committed, error)
	// Listen calls fn after every durable commit that has changes, in the order of
	// their numbers, with the number of its last change, until stop is called. A
	// call may be left out when a later one covers it. fn must not block, nor call
	// the driver. What another process commits may be reported as late as with the
	// next commit of this one.
	Listen(fn func(last int64)) (stop func())
	// Check returns nil when the database can be written, having tried.
	Check(ctx context.Context) error
	// Purge removes rows that are past their time, at most limit of each class, and
	// returns how many went: zero only when none is left to go.
	Purge(ctx context.Context, c Cutoffs, limit int) (int, error)
	// Close completes what is under way and closes the database. Calls after it
	// return an error that wraps ErrClosed; closing twice is no error.
	Close() error

	Queries
}

// Queries are the lists. Each returns limit rows at most.
type Queries interface {
	// VMs lists VMs in the order of their ids, byte by byte.
	VMs(ctx context.Context, q VMQuery, limit int) ([]VMRow, error)
	// Commands lists commands, the highest Seq first.
	Commands(ctx context.Context, q CommandQuery, limit int) ([]CommandRow, error)
	// Events lists events, the highest Seq first, or the lowest with After.
	Events(ctx context.Context, q EventQuery, limit int) ([]EventRow, error)
	// Heartbeats lists rows of heartbeats, the latest At first.
	Heartbeats(ctx context.Context, q HeartbeatQuery, limit int) ([]HeartbeatRow, error)
	// Due lists the VMs and the commands whose DueAt is not after now, the earliest
	// first: limit of each.
	Due(ctx context.Context, now time.Time, limit int) (Rows, error)
	// Changes lists changes, the lowest Seq first. It returns ErrPurged when some of
	// those after q.After were purged, of whichever VM.
	Changes(ctx context.Context, q ChangeQuery, limit int) ([]ChangeRow, error)
	// LastChange returns the number of the latest change; zero when there was none.
	LastChange(ctx context.Context) (int64, error)
	// Mark returns the number that was last committed under a name; zero for none.
	Mark(ctx context.Context, name string) (int64, error)
}

// The errors of drivers.
var (
	// ErrClosed occurs when a driver is used after its Close.
	ErrClosed = errors.New("the database is closed")
	// ErrPurged occurs when changes that were asked for are no longer kept.
	ErrPurged = errors.New("the changes are no longer kept")
)

// ConflictError says which rows are not as they were loaded: all of a commit, so
// that one more Load is enough.
type ConflictError struct {
	VMs, Commands []string
}

// Error names the rows.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("changed since they were loaded: %s", strings.Join(append(append([]string{}, e.VMs...), e.Commands...), ", "))
}

// Keys names rows to be loaded.
type Keys struct {
	// VMs are loaded together with the first of the commands in each of their
	// Queues, by Seq: Depth of each. The commands are loaded also when the row of
	// their VM is not there.
	VMs    []string
	Queues []string
	Depth  int
	// Commands are loaded by their ids.
	Commands []string
}

// Rows are rows as they were loaded, in no order unless it is said. No row is there
// twice.
type Rows struct {
	VMs      []VMRow
	Commands []CommandRow
}

// Version counts the commits of a row; zero is a row that is not there. A commit
// with a version replaces the row that has it, and the row then has the next.
type Version int64

// VMRow is a VM.
type VMRow struct {
	ID string
	// Pool, Org, Status and Connected are what VMs are listed by.
	Pool, Org, Status string
	Connected         bool
	// LastSeenAt is what the Cutoffs of VMs are about.
	LastSeenAt time.Time
	// DueAt is when Due lists it.
	DueAt   time.Time
	Version Version
	Doc     []byte
}

// CommandRow is a command.
type CommandRow struct {
	// Seq is the order in which commands were committed first; Commit gives it, and
	// it stays. None is given twice, nor of the other rows, even after a purge.
	Seq int64
	ID  string
	// VM and Type never change; they, State and Seq are what commands are listed by.
	VM, Type, State string
	// Queue is which of the queues of its VM it is in; empty for none.
	Queue string
	// DueAt is when Due lists it, and FinishedAt what the Cutoffs of commands are about.
	DueAt, FinishedAt time.Time
	Version           Version
	Doc               []byte
}

// EventRow is an event. It never changes.
type EventRow struct {
	// Seq is the order in which events were committed; Commit gives it.
	Seq        int64
	VM, Type   string
	ReceivedAt time.Time
	Doc        []byte
}

// HeartbeatRow holds heartbeats of several VMs. It never changes.
type HeartbeatRow struct {
	// At is when the first of them was received. It is what they are listed by.
	At time.Time
	// VMs are those whose heartbeats they are, each once. Drivers need not return them.
	VMs []string
	Doc []byte
}

// ChangeRow is an entry of the log of changes. It never changes.
type ChangeRow struct {
	// Seq is the order of the changes over all commits, from one and without gaps;
	// Commit gives it.
	Seq int64
	At  time.Time
	VM  string
	// Kind says what Doc is of.
	Kind string
	// Doc is as committed. Of a change that stands for an event it is that of the
	// event, or empty when the event is no longer kept.
	Doc []byte
	// Event is for a commit: the change stands for the event at this place in
	// Writes.Events, counted from one. Zero is none.
	Event int
	// EventSeq is the Seq of that event, when the change is listed: also when the
	// event is no longer kept.
	EventSeq int64
}

// Writes is what one commit does. No row is in it twice, and the numbers that
// Commit gives need not be set. What it lists is committed in this order.
type Writes struct {
	VMs        []VMRow
	Commands   []CommandRow
	Events     []EventRow
	Heartbeats []HeartbeatRow
	Changes    []ChangeRow
	// Marks are numbers to be kept by name.
	Marks map[string]int64
}

// Committed are the numbers that a commit gave.
type Committed struct {
	// Commands has the Seq of each of Writes.Commands, new or not.
	Commands []int64
	// Events has the Seq of each of Writes.Events.
	Events []int64
	// FirstChange is the Seq of the first of Writes.Changes; the others follow it.
	FirstChange int64
}

// VMQuery chooses VMs; what is empty lets all through.
type VMQuery struct {
	Pool, Org, Status string
	Connected         *bool
	// After is the id after which the list begins.
	After string
}

// CommandQuery chooses commands; what is empty lets all through.
type CommandQuery struct {
	VM, Type string
	States   []string
	// Before lets only those with a lower Seq through.
	Before int64
	// FinishedSince lets only those through that finished at this time or later.
	FinishedSince time.Time
}

// EventQuery chooses events; what is empty lets all through.
type EventQuery struct {
	VM, Type string
	// Since and Until bound the time of receipt: Since ≤ t < Until.
	Since, Until time.Time
	// Before lets only those with a lower Seq through, and After, if it is not nil,
	// those with a higher one, the lowest first.
	Before int64
	After  *int64
}

// HeartbeatQuery chooses rows of heartbeats.
type HeartbeatQuery struct {
	// VM lets only rows through that have it among their VMs; a driver may let a few
	// others through as well. Empty is all.
	VM string
	// Before lets only rows through whose At is earlier; zero is all.
	Before time.Time
}

// ChangeQuery chooses changes.
type ChangeQuery struct {
	// VM is whose changes; empty is all.
	VM string
	// After lets only those with a higher Seq through.
	After int64
}

// Cutoffs are the times before which rows of each class are removed; zero keeps
// all. Of changes and heartbeats those go that were committed first, up to the
// first that is to be kept; those that are dated later than a day after Now count as past their time.
// The latest change always stays.
type Cutoffs struct {
	Now        time.Time
	Changes    time.Time
	Heartbeats time.Time
	// Events goes by ReceivedAt, and lets those with a Seq above EventsThrough stay.
	Events        time.Time
	EventsThrough int64
	// Commands goes by FinishedAt; those without one stay.
	Commands time.Time
	// VMs goes by LastSeenAt; those without one and those that are Connected stay.
	VMs time.Time
}
