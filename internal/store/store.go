// Package store owns the contract of storage drivers: rows with the columns that queries
// need, an opaque document and a version. It knows no rule of the fleet. Package
// storetest has the suite that every driver passes.
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
// Every method that returns an error may fail. Callers tell errors apart only where
// they are named here. Load and each list return a *DamagedError for rows that cannot be
// read.
type Driver interface {
	// ID names the database: numbers of rows have no meaning in another.
	ID() string
	// Load returns the rows that k names, as far as they exist, as of one moment.
	Load(ctx context.Context, k Keys) (Rows, error)
	// Commit makes all of the writes durable, or none. It returns a *ConflictError
	// when a row is not as it was loaded. After any other error it is in doubt whether
	// the writes were made: the rows must be loaded again.
	Commit(ctx context.Context, w Writes) (Committed, error)
	// Listen calls fn after every durable commit that has changes, in the order of
	// their numbers, with the number of its last change, until stop is called. A
	// call may be left out when a later one covers it. fn must not block, nor call
	// the driver or stop. Commits of another process may be reported as late as with
	// the next commit of this one.
	Listen(fn func(last int64)) (stop func())
	// Check writes to the database and returns nil if that succeeds.
	Check(ctx context.Context) error
	// Close completes what is under way and closes the database. Calls after it
	// return an error that wraps ErrClosed; closing twice is not an error.
	Close() error

	Queries
	Remover
}

// Remover removes rows: those that are past their time, and those that are damaged.
type Remover interface {
	// Purge removes rows that are past their time, at most limit of each class, and
	// returns how many it removed: zero only when none is left.
	Purge(ctx context.Context, c Cutoffs, limit int) (int, error)
	// SetAside moves those of the rows out of their classes that cannot be read, or that
	// check finds fault with, all or none of them, and returns which it has moved; one
	// that is no longer there is left out. It calls check with the rows as they are then,
	// and check must not call the driver. A row that was set aside is kept as it is, for
	// people, and no other method returns it; but
	//   - the id of a command stays taken: a commit of a new one conflicts,
	//   - Load names what it is asked for and was set aside in Rows.Aside,
	//   - of a change and all before it Changes returns ErrPurged, and no number is given
	//     again.
	SetAside(ctx context.Context, at time.Time, places []Place, check Check) ([]Aside, error)
}

// MaxBytes bounds the documents of a list together, so that nobody holds much more than
// this of a database at a time.
const MaxBytes = 2 << 20

// Queries are lists and numbers. A list has limit rows at most, and MaxBytes of documents
// or a single row. More is whether there are rows after the last, as of the same moment.
// A driver does not hold more than the list and one row of it.
type Queries interface {
	// VMs lists VMs in the order of their ids, byte by byte.
	VMs(ctx context.Context, q VMQuery, limit int) (rows []VMRow, more bool, err error)
	// Commands lists commands, the highest Seq first.
	Commands(ctx context.Context, q CommandQuery, limit int) (rows []CommandRow, more bool, err error)
	// LastFinished lists of each VM the command in one of q.States that finished last, at
	// q.Since or later, in the order of their VMs, byte by byte.
	LastFinished(ctx context.Context, q FinishedQuery, limit int) (rows []CommandRow, more bool, err error)
	// Events lists events, the highest Seq first, or the lowest with After.
	Events(ctx context.Context, q EventQuery, limit int) (rows []EventRow, more bool, err error)
	// Heartbeats lists rows of heartbeats, the latest At first.
	Heartbeats(ctx context.Context, q HeartbeatQuery, limit int) (rows []HeartbeatRow, more bool, err error)
	// Due lists the VMs and the commands whose DueAt is not after now, the earliest
	// first: a list of each.
	Due(ctx context.Context, now time.Time, limit int) (rows Rows, more bool, err error)
	// Changes lists changes, the lowest Seq first. It returns ErrPurged when some of
	// those after q.After were purged, whatever their VM.
	Changes(ctx context.Context, q ChangeQuery, limit int) (rows []ChangeRow, more bool, err error)

	Numbers
}

// Numbers are single numbers.
type Numbers interface {
	// LastChange returns the number of the latest change; zero when there was none.
	LastChange(ctx context.Context) (int64, error)
	// Mark returns the number that was last committed under this name; zero for none.
	Mark(ctx context.Context, name string) (int64, error)
}

// The errors of drivers.
var (
	// ErrClosed occurs when a driver is used after its Close.
	ErrClosed = errors.New("the database is closed")
	// ErrRemoved occurs when the files of the database were removed, renamed or replaced
	// while it is open: what was committed from then on would be lost.
	ErrRemoved = errors.New("removed, renamed or replaced since it was opened")
	// ErrPurged occurs when some of the requested changes are no longer kept.
	ErrPurged = errors.New("the changes are no longer kept")
)

// ConflictError names the rows that are not as they were loaded: all those of a
// commit, so that one more Load is enough.
type ConflictError struct {
	VMs, Commands []string
}

// Error names the rows.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("changed since they were loaded: %s", strings.Join(append(append([]string{}, e.VMs...), e.Commands...), ", "))
}

// Keys names rows to be loaded.
type Keys struct {
	// VMs are loaded together with the first Depth commands, by Seq, of each of their
	// Queues. The commands are loaded also when their VM has no row.
	VMs    []string
	Queues []string
	Depth  int
	// Commands are loaded by their ids.
	Commands []string
}

// Rows are rows as they were loaded, in no order unless stated. No row is there twice.
type Rows struct {
	VMs      []VMRow
	Commands []CommandRow
	// Aside are those of Keys.VMs and Keys.Commands that have no row, since it was set
	// aside. Lists leave it empty.
	Aside Asides
}

// Version counts the commits of a row; zero stands for a row that does not exist. A
// commit with a version replaces the row that has it, and the row then has the next.
type Version int64

// VMRow is a VM.
type VMRow struct {
	// Row is its Place. Commits do not need it.
	Row int64
	ID  string
	// Pool, Org, Status and Connected are what VMQuery filters by.
	Pool, Org, Status string
	Connected         bool
	// LastSeenAt is what Cutoffs.VMs is compared with.
	LastSeenAt time.Time
	// DueAt is when Due lists it.
	DueAt   time.Time
	Version Version
	Doc     []byte
}

// CommandRow is a command.
type CommandRow struct {
	// Seq is the order in which commands were first committed. Commit assigns it, and
	// it never changes: in a commit it is zero or as it was loaded, and another one is a
	// conflict. No Seq of a class of rows is assigned twice, even after a purge.
	Seq int64
	ID  string
	// VM and Type never change. CommandQuery filters by them, State, Seq and FinishedAt.
	VM, Type, State string
	// Queue is the queue of its VM that it is in; empty for none.
	Queue string
	// DueAt is when Due lists it, and FinishedAt what Cutoffs.Commands is compared with.
	DueAt, FinishedAt time.Time
	Version           Version
	Doc               []byte
}

// EventRow is an event. It never changes.
type EventRow struct {
	// Seq is the order in which events were committed; Commit assigns it.
	Seq        int64
	VM, Type   string
	ReceivedAt time.Time
	Doc        []byte
}

// HeartbeatRow holds heartbeats of several VMs. It never changes.
type HeartbeatRow struct {
	// Seq is its Place; Commit assigns it.
	Seq int64
	// At is when the first of them was received. Lists are ordered by it.
	At time.Time
	// VMs are the VMs that have heartbeats in it, each once. Drivers need not return them.
	VMs []string
	Doc []byte
}

// ChangeRow is an entry of the log of changes. It never changes.
type ChangeRow struct {
	// Seq is the order of the changes over all commits, from one and without gaps;
	// Commit assigns it.
	Seq int64
	At  time.Time
	VM  string
	// Kind is what Doc is a document of.
	Kind string
	// Doc is as committed. A change that stands for an event has the event's, empty
	// when the event is no longer kept.
	Doc []byte
	// Event is for a commit: the change stands for the event at this place in
	// Writes.Events, counted from one. Zero is none.
	Event int
	// EventSeq is the Seq of that event, when the change is listed: also when the
	// event is no longer kept.
	EventSeq int64
}

// Writes is what one commit does. No row is in it twice, and the numbers that Commit
// assigns need not be set. The rows of each list are committed in its order.
type Writes struct {
	VMs        []VMRow
	Commands   []CommandRow
	Events     []EventRow
	Heartbeats []HeartbeatRow
	Changes    []ChangeRow
	// Marks are numbers to be stored by name. A driver returns an error for a name that
	// it uses itself.
	Marks map[string]int64
}

// Committed are the numbers that a commit assigned.
type Committed struct {
	// Commands has the Seq of each of Writes.Commands, new or not.
	Commands []int64
	// Events has the Seq of each of Writes.Events.
	Events []int64
	// FirstChange is the Seq of the first of Writes.Changes; the others follow it.
	FirstChange int64
}

// VMQuery selects VMs. An empty field selects all.
type VMQuery struct {
	Pool, Org, Status string
	Connected         *bool
	// After is the id after which the list begins.
	After string
}

// CommandQuery selects commands. An empty field selects all.
type CommandQuery struct {
	VM, Type string
	States   []string
	// Before selects those with a lower Seq.
	Before int64
}

// FinishedQuery selects commands that have finished.
type FinishedQuery struct {
	States []string
	Since  time.Time
	// After is the VM after which the list begins.
	After string
}

// EventQuery selects events. An empty field selects all.
type EventQuery struct {
	VM, Type string
	// Since and Until bound the time of receipt: Since ≤ t < Until.
	Since, Until time.Time
	// Before selects those with a lower Seq, and After, if it is not nil, those with a
	// higher one, the lowest first.
	Before int64
	After  *int64
}

// HeartbeatQuery selects rows of heartbeats.
type HeartbeatQuery struct {
	// VM selects rows that have it among their VMs; a driver may return a few others as
	// well. Empty is all.
	VM string
	// Before selects rows whose At is earlier; zero is all.
	Before time.Time
}

// ChangeQuery selects changes.
type ChangeQuery struct {
	// VM selects the changes of one VM; empty is all.
	VM string
	// After selects those with a higher Seq.
	After int64
}

// Cutoffs are the times before which rows of each class are removed; zero keeps all.
// Changes and heartbeats are removed in the order of their commits, up to the first
// that is to be kept; those dated later than a day after Now count as past their time.
// The latest change always stays.
type Cutoffs struct {
	// Now is required.
	Now        time.Time
	Changes    time.Time
	Heartbeats time.Time
	// Events is compared with ReceivedAt; those with a Seq above EventsThrough stay.
	Events        time.Time
	EventsThrough int64
	// Commands is compared with FinishedAt; those without one stay.
	Commands time.Time
	// VMs is compared with LastSeenAt; those without one and those that are Connected stay.
	VMs time.Time
}
