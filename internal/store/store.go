// Package store owns the contract of storage drivers: rows with the columns that queries
// need, an opaque document and a version. It contains no rules of the fleet. Package
// storetest has the suite that every driver passes.
package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Driver stores rows in a database. It is safe for concurrent use, including by several
// processes if the database is.
//
// A row has the columns that queries need, a document, and a version. A driver does not
// interpret columns and documents: it returns them as they were committed. Times are in
// UTC, precise to the nanosecond; a zero time means none, and an empty document is
// equivalent to none. A driver does not retain memory of its callers, and what it returns
// belongs to the caller.
//
// A call whose context has ended before it begins returns an error and does nothing.
//
// Every method that returns an error may fail. Callers distinguish only the errors named
// here. Load, Tokens and each list return a *DamagedError for rows that cannot be read.
type Driver interface {
	// ID identifies the database: row numbers have no meaning in another one.
	ID() string
	// Load returns the existing rows that k names, as of one moment.
	Load(ctx context.Context, k Keys) (Rows, error)
	// Commit makes all of the writes durable, or none. It returns a *ConflictError when a
	// row has changed since it was loaded. After any other error it is in doubt whether the
	// writes were made: the rows must be loaded again.
	Commit(ctx context.Context, w Writes) (Committed, error)
	// Listen calls fn after every durable commit with changes, in order, with the number of
	// its last change, until stop is called. A call may be omitted if a later one covers
	// it. fn must not block, nor call the driver or stop. Commits of another process may be
	// reported as late as with the next commit of this one.
	Listen(fn func(last int64)) (stop func())
	// Check writes to the database and returns nil if that succeeds.
	Check(ctx context.Context) error
	// Close completes calls in progress and closes the database. Calls after it return an
	// error that wraps ErrClosed; closing twice is not an error.
	Close() error

	Queries
	Remover
}

// Remover removes expired rows and damaged rows.
type Remover interface {
	// Purge removes expired rows, at most limit of each class, and returns how many it
	// removed: zero only if none is left.
	Purge(ctx context.Context, c Cutoffs, limit int) (int, error)
	// SetAside moves those of the rows out of their classes that cannot be read, or that
	// check rejects, all of them or none, and returns those that it has moved; a row that
	// no longer exists is skipped. It calls check with the current rows, and check must not
	// call the driver. A row that was set aside is kept unchanged, for people, and no other
	// method returns it, except that
	//   - the id of a command remains in use: a commit of a new one conflicts,
	//   - Load reports requested rows that were set aside in Rows.Aside,
	//   - Changes returns ErrPurged for the change and all before it, and numbers are not
	//     reused.
	SetAside(ctx context.Context, at time.Time, places []Place, check Check) ([]Aside, error)
}

// MaxBytes bounds the total size of the documents of a list, and so the memory for it.
const MaxBytes = 2 << 20

// Queries are lists and numbers. A list has at most limit rows, and at most MaxBytes of
// documents or a single row. more is whether there are rows after the last, as of the same
// moment. A driver holds at most the list and one more row in memory.
type Queries interface {
	// VMs lists VMs in order of their ids, byte by byte.
	VMs(ctx context.Context, q VMQuery, limit int) (rows []VMRow, more bool, err error)
	// Commands lists commands, highest Seq first.
	Commands(ctx context.Context, q CommandQuery, limit int) (rows []CommandRow, more bool, err error)
	// LastFinished lists for each VM the command in one of q.States that finished last, at
	// q.Since or later, in order of the VM ids, byte by byte.
	LastFinished(ctx context.Context, q FinishedQuery, limit int) (rows []CommandRow, more bool, err error)
	// Due lists the VMs and the commands whose DueAt is not after now, earliest first: a
	// list of each.
	Due(ctx context.Context, now time.Time, limit int) (rows Rows, more bool, err error)
	// Tokens returns all tokens, in no order. They are few: callers bound their number.
	Tokens(ctx context.Context) ([]TokenRow, error)

	Logs
	Numbers
}

// Logs are the lists of rows that never change.
type Logs interface {
	// Events lists events, highest Seq first, or lowest first with After.
	Events(ctx context.Context, q EventQuery, limit int) (rows []EventRow, more bool, err error)
	// Heartbeats lists rows of heartbeats, latest At first.
	Heartbeats(ctx context.Context, q HeartbeatQuery, limit int) (rows []HeartbeatRow, more bool, err error)
	// Audit lists audit events, highest Seq first.
	Audit(ctx context.Context, q AuditQuery, limit int) (rows []AuditRow, more bool, err error)
	// Changes lists changes, lowest Seq first. It returns ErrPurged when some of those
	// after q.After were purged, whatever their VM.
	Changes(ctx context.Context, q ChangeQuery, limit int) (rows []ChangeRow, more bool, err error)
}

// Numbers are single numbers and counts of rows.
type Numbers interface {
	// Counts returns how many VMs and open commands there are. It takes time in proportion
	// to them, and memory in proportion to the result. A row that cannot be read may be left
	// out.
	Counts(ctx context.Context) (Counts, error)
	// LastChange returns the number of the latest change; zero for none.
	LastChange(ctx context.Context) (int64, error)
	// Mark returns the number that was last committed with this name; zero for none.
	Mark(ctx context.Context, name string) (int64, error)
}

// The errors of drivers.
var (
	// ErrClosed occurs when a driver is used after Close.
	ErrClosed = errors.New("the database is closed")
	// ErrRemoved occurs when the files of the database were removed, renamed or replaced
	// while it is open: later commits would be lost.
	ErrRemoved = errors.New("removed, renamed or replaced since it was opened")
	// ErrPurged occurs when some of the requested changes are no longer kept.
	ErrPurged = errors.New("the changes are no longer kept")
)

// ConflictError names the rows that have changed since they were loaded: all those of a
// commit, so that one more Load is enough.
type ConflictError struct {
	VMs, Commands, Tokens []string
}

// Error names the rows.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("changed since they were loaded: %s", strings.Join(slices.Concat(e.VMs, e.Commands, e.Tokens), ", "))
}

// Keys names rows to load.
type Keys struct {
	// VMs are loaded together with the first Depth commands, by Seq, of each of their
	// Queues. The commands are loaded even if their VM has no row.
	VMs    []string
	Queues []string
	Depth  int
	// Commands are loaded by their ids.
	Commands []string
}

// Rows are loaded rows, in no order unless stated, without duplicates.
type Rows struct {
	VMs      []VMRow
	Commands []CommandRow
	// Aside are those of Keys.VMs and Keys.Commands whose row was set aside and not
	// replaced. Lists leave it empty.
	Aside Asides
}

// Counts are how many rows there are, in no order.
type Counts struct {
	// VMs has an element for each combination of the columns that occurs, and Queues for each
	// CommandRow.Queue that is not empty, of VMs that are connected and of others.
	VMs    []VMCount
	Queues []QueueCount
}

// VMCount is how many VMs have these columns.
type VMCount struct {
	Pool, Status string
	Connected    bool
	N            int64
}

// QueueCount is how many commands are in the queues with this name, of all VMs together that
// are connected, or of all others. A VM without a row is not connected.
type QueueCount struct {
	Queue     string
	Connected bool
	N         int64
	// First is the lowest Seq of them.
	First int64
}

// Writes is the content of one commit. It contains no row twice, and the numbers that
// Commit assigns need not be set. The rows of each list are committed in order.
type Writes struct {
	VMs        []VMRow
	Commands   []CommandRow
	Events     []EventRow
	Heartbeats []HeartbeatRow
	Changes    []ChangeRow
	Tokens     []TokenRow
	// RemovedTokens are ids of tokens to remove, whatever their versions, if they exist.
	RemovedTokens []string
	Audit         []AuditRow
	// Erase is whether rows lose secrets with this commit. A driver overwrites what it replaces
	// or removes in the rows of VMs and commands, and with Erase also the copies that it keeps
	// for its own purposes, within a minute.
	Erase bool
	// Marks are numbers to store by name. A driver returns an error for a name that it uses
	// itself.
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

// VMQuery selects VMs. An empty field matches all.
type VMQuery struct {
	Pool, Org, Status string
	Connected         *bool
	// Pools selects those that are in one of these pools, none of which is empty.
	Pools []string
	// After is the id after which the list begins.
	After string
}

// CommandQuery selects commands. An empty field matches all.
type CommandQuery struct {
	VM, Type string
	States   []string
	// Pools selects those of VMs that are in one of these pools, none of which is empty, as
	// of the moment of the list.
	Pools []string
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

// EventQuery selects events. An empty field matches all.
type EventQuery struct {
	VM, Type string
	// Pools is that of CommandQuery.
	Pools []string
	// Since and Until bound the time of receipt: Since ≤ t < Until.
	Since, Until time.Time
	// Before selects those with a lower Seq. After, if not nil, selects those with a higher
	// one, lowest first.
	Before int64
	After  *int64
}

// AuditQuery selects audit events. An empty field matches all.
type AuditQuery struct {
	Principal, Action, VM, Command, Outcome string
	// Pools selects those whose VM is in one of the pools at the moment.
	Pools []string
	// Since and Until bound the time: Since ≤ t < Until.
	Since, Until time.Time
	// Before selects those with a lower Seq.
	Before int64
}

// HeartbeatQuery selects rows of heartbeats.
type HeartbeatQuery struct {
	// VM selects rows that have it among their VMs; a driver may return a few others as
	// well. Empty matches all.
	VM string
	// Before selects rows whose At is earlier; zero matches all.
	Before time.Time
}

// ChangeQuery selects changes.
type ChangeQuery struct {
	// VM selects the changes of one VM; empty matches all.
	VM string
	// Pools selects those whose Pool or Left is one of these, none of which is empty; an
	// empty list matches all.
	Pools []string
	// After selects those with a higher Seq.
	After int64
}

// Cutoffs are the times before which rows of each class are removed; zero keeps all.
// Changes and heartbeats are removed in order of their commits, up to the first that must
// be kept; those dated more than a day after Now count as expired. The latest change is
// always kept.
type Cutoffs struct {
	// Now is required.
	Now        time.Time
	Changes    time.Time
	Heartbeats time.Time
	// Events is compared with ReceivedAt; those with a Seq above EventsThrough are kept.
	Events        time.Time
	EventsThrough int64
	// Commands is compared with FinishedAt; those without one are kept.
	Commands time.Time
	// VMs is compared with LastSeenAt; those without one and those that are Connected are
	// kept.
	VMs time.Time
	// Audit is compared with At.
	Audit time.Time
}
