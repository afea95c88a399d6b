// Package store says what must survive a crash, as small interfaces that a
// backend fulfils and storetest checks.
//
// Every method that changes something returns once the change is durable:
// synced to disk, or committed by the database; Lease says where less will do.
// Every method may return an error that wraps fleet.ErrUnavailable, and then nothing
// was changed, unless the disk failed while it was synced. Backends apply the
// transitions of package fleet; they decide nothing themselves.
package store

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Store is everything a backend provides.
type Store interface {
	Commands
	Deliveries
	Sessions
	Reports
	Fleet
	Changes
	Upkeep
}

// Commands is what operators do with commands.
type Commands interface {
	// Enqueue keeps a pending command. Where nothing of its VM is before it, it is
	// claimed in the same step for the VM's live session, at the time that now
	// tells. If its id is in use for the same request Enqueue returns the existing
	// record, else fleet.ErrIDTaken.
	Enqueue(ctx context.Context, c fleet.Command, now func() time.Time) (fleet.Command, error)
	// Cancel takes a command back. It returns fleet.ErrNotFound, or
	// fleet.ErrEnded with the record.
	Cancel(ctx context.Context, id fleet.CommandID, now time.Time) (fleet.Command, error)
	// Command returns one command or fleet.ErrNotFound.
	Command(ctx context.Context, id fleet.CommandID) (fleet.Command, error)
	// Commands lists commands, the latest accepted first, before the Seq in page.
	Commands(ctx context.Context, f CommandFilter, page Page) ([]fleet.Command, error)
	// Queue returns the open commands of vm, oldest first, at least up to the first
	// that decides what is delivered next.
	Queue(ctx context.Context, vm fleet.VMID, now time.Time) ([]fleet.Command, error)
}

// CommandFilter chooses commands; what is empty lets all through.
type CommandFilter struct {
	VM     fleet.VMID
	States []fleet.CommandState
	Type   string
}

// Page asks for part of a list.
type Page struct {
	// Size is the most that is returned.
	Size int
	// Before is where lists in falling order go on: entries with a lower Seq.
	// Zero is from the start.
	Before int64
	// After is where lists in rising order go on: entries with a higher VM id.
	After fleet.VMID
}

// Deliveries is how commands reach agents. At most one command of a VM is out
// at a time.
type Deliveries interface {
	// Next returns the command of vm that may be delivered now, as
	// fleet.NextDelivery says. It claims nothing. It returns fleet.ErrNothingDue
	// when there is none, and fleet.ErrSuperseded when a newer session has claimed
	// the VM.
	Next(ctx context.Context, vm fleet.VMID, a Attempt) (fleet.Command, error)
	// Lease claims a command for an attempt that is about to be made. It returns
	// fleet.ErrNotDue when id is not what Next would return now, and
	// fleet.ErrSuperseded. A lease for a stream may be lost with the power.
	Lease(ctx context.Context, vm fleet.VMID, id fleet.CommandID, a Attempt) (fleet.Command, error)
	// NotWritten takes back a delivery on a live session that was not written to the
	// agent in full. It does nothing if the command has moved on.
	NotWritten(ctx context.Context, id fleet.CommandID, e fleet.Epoch, now time.Time) error
	// TokenMissing notes why a register_runner of vm has no token, and returns
	// whether that is news: what is known is not written again. Lease and the end of
	// the command clear it.
	TokenMissing(ctx context.Context, vm fleet.VMID, why string, now time.Time) (news bool, err error)
	// Ack records an agent's answer that came on the session with this epoch. It
	// returns the record and whether the command had already ended. It returns
	// fleet.ErrNotFound when the VM has no such command,
	// fleet.ErrNotDelivered when it was never sent, and fleet.ErrSuperseded when it
	// arrived after a newer session was opened. now is when it arrived.
	Ack(ctx context.Context, vm fleet.VMID, e fleet.Epoch, a fleet.Ack, now time.Time) (c fleet.Command, late bool, err error)
	// Sweep ends the commands whose time is up as of now, or puts the decision off,
	// as Command.Lapsed says. It looks at limit commands at most and returns how
	// many it looked at. lastMessageAt must not block.
	Sweep(ctx context.Context, now time.Time, lastMessageAt LastMessageAt, limit int) (int, error)
	// ListenEarly is Listen without waiting until the changes are durable: a loss of
	// power may undo them, and whoever asked for them has no answer yet.
	ListenEarly(fn func([]fleet.Change)) (stop func())
}

// LastMessageAt returns when the latest message arrived on the session that a command
// is out on; zero for none, and as long as the command was not written to it.
type LastMessageAt func(fleet.Command) time.Time

// Attempt is the way a command is about to be delivered.
type Attempt struct {
	Via fleet.Route
	// Epoch is the session that asks, and Written the command that was last written
	// on it, empty for none; not used over HTTP.
	Epoch   fleet.Epoch
	Written fleet.CommandID
	// WithoutToken leaves out what needs a registration token.
	WithoutToken bool
	At           time.Time
}

// Sessions is what is known of live sessions.
type Sessions interface {
	// OpenSession gives the VM its next session, superseding the one before. written
	// returns the command that was last written on that one, as of when it is called,
	// and must not block.
	// When the VM is to be registered in this boot and no command for it is on
	// its way, register is enqueued in the same step; it is not used otherwise.
	OpenSession(ctx context.Context, h fleet.Hello, register fleet.Command, written func() fleet.CommandID, now time.Time) (fleet.VM, error)
	// CloseSession ends a session, on which written is the command that was last
	// written. The end of one that has been superseded changes nothing.
	CloseSession(ctx context.Context, vm fleet.VMID, e fleet.Epoch, written fleet.CommandID, now time.Time) error
	// ResetSessions ends all sessions: those of a controller that is no more. It
	// returns how many there were.
	ResetSessions(ctx context.Context, now time.Time) (int, error)
	// RequestRegistration enqueues register for a VM that polls and is to be
	// registered in this boot; it does nothing for any other. The VM is known
	// afterwards.
	RequestRegistration(ctx context.Context, vm fleet.VMID, register fleet.Command, now time.Time) (fleet.VM, error)
}

// Reports is what agents tell.
type Reports interface {
	// RecordEvent keeps an event and what it shows of its VM, and returns both.
	// An event from a superseded session is kept and shows nothing. register is
	// enqueued when the event asks for a live VM to be registered.
	RecordEvent(ctx context.Context, e fleet.Event, register fleet.Command) (fleet.VM, fleet.Event, error)
	// RecordHeartbeats keeps heartbeats, oldest first, and what they show of
	// their VMs. Those from superseded sessions are left out. register makes the
	// command for a VM that turns out to have restarted.
	RecordHeartbeats(ctx context.Context, hs []fleet.Heartbeat, register func(fleet.VMID) fleet.Command) error
	// UnjournaledEvents returns events that are not yet marked, oldest first.
	UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error)
	// MarkJournaled marks events up to seq as written to the journal.
	MarkJournaled(ctx context.Context, seq int64) error
}

// Fleet is what can be asked about the fleet.
type Fleet interface {
	// VM returns one VM or fleet.ErrNotFound.
	VM(ctx context.Context, id fleet.VMID) (fleet.VM, error)
	// VMs lists VMs in the order of their ids, after the id in page.
	VMs(ctx context.Context, f VMFilter, page Page) ([]fleet.VM, error)
	// Events lists events, the latest received first, before the Seq in page.
	Events(ctx context.Context, f EventFilter, page Page) ([]fleet.Event, error)
	// Heartbeats lists the heartbeats of a VM that are still kept, the latest
	// received first; in page, Before is a time of receipt in Unix nanoseconds.
	Heartbeats(ctx context.Context, vm fleet.VMID, page Page) ([]fleet.Heartbeat, error)
}

// VMFilter chooses VMs; what is empty lets all through.
type VMFilter struct {
	Pool      string
	Org       string
	Status    string
	Connected *bool
}

// EventFilter chooses events; what is empty lets all through.
type EventFilter struct {
	VM   fleet.VMID
	Type string
	// Since and Until bound the time of receipt: Since ≤ t < Until.
	Since time.Time
	Until time.Time
}

// Changes is the log of all that happened to the fleet, in order.
type Changes interface {
	// Changes returns what came after the change with this Seq, oldest first. It
	// returns fleet.ErrCursorExpired when some of that is no longer kept.
	Changes(ctx context.Context, f ChangeFilter, after int64, limit int) ([]fleet.Change, error)
	// LastChange returns the Seq of the latest change; zero when there is none.
	LastChange(ctx context.Context) (int64, error)
	// Listen calls fn after each commit with the changes in it, those of a VM in
	// their order, until stop is called. fn must not block. A change made by
	// another process may be told late, and one told twice is no error.
	Listen(fn func([]fleet.Change)) (stop func())
}

// ChangeFilter chooses changes; what is empty lets all through.
type ChangeFilter struct {
	VM fleet.VMID
}

// Upkeep is what keeps a store in order.
type Upkeep interface {
	// ID names this store: a cursor into one store means nothing in another.
	ID() string
	// Check returns nil when the store can be written, having tried.
	Check(ctx context.Context) error
	// Purge forgets what is older than the retention, a bounded part at a time,
	// until nothing is left to forget. It returns how many rows went.
	Purge(ctx context.Context, r Retention, now time.Time) (int, error)
	// Close writes what is under way and closes the store. Calls after it return
	// fleet.ErrUnavailable.
	Close() error
}

// Retention is how long each class is kept. Zero is forever.
type Retention struct {
	Events     time.Duration
	Heartbeats time.Duration
	// Commands counts from when a command ended.
	Commands time.Duration
	// VMs counts from when a VM that is not connected was last heard of.
	VMs     time.Duration
	Changes time.Duration
}
