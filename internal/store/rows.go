package store

import "time"

// Version counts the commits of a row; zero represents a row that does not exist. A commit
// with a version replaces the row with that version, and increments it.
type Version int64

// VMRow is a VM.
type VMRow struct {
	// Row is its Place. Commits ignore it.
	Row int64
	ID  string
	// Pool, Org, Status and Connected are filtered by VMQuery.
	Pool, Org, Status string
	Connected         bool
	// LastSeenAt is compared with Cutoffs.VMs.
	LastSeenAt time.Time
	// DueAt is when Due returns it.
	DueAt   time.Time
	Version Version
	Doc     []byte
}

// CommandRow is a command.
type CommandRow struct {
	// Seq is the order in which commands were first committed. Commit assigns it, and it
	// never changes: in a commit it is zero or as loaded, and a different one is a
	// conflict. No Seq of a class of rows is assigned twice, even after a purge.
	Seq int64
	ID  string
	// VM and Type never change. CommandQuery filters by them, State, Seq and FinishedAt.
	VM, Type, State string
	// Queue is the queue of its VM that contains it; empty for none.
	Queue string
	// DueAt is when Due returns it, and FinishedAt is compared with Cutoffs.Commands.
	DueAt, FinishedAt time.Time
	Version           Version
	Doc               []byte
}

// EventRow is an event. It never changes.
type EventRow struct {
	// Seq is the order of commits; Commit assigns it.
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
	// VMs are the VMs of its heartbeats, without duplicates. Drivers need not return them.
	VMs []string
	Doc []byte
}

// TokenRow is a token of an operator.
type TokenRow struct {
	// Row is its Place. Commits ignore it.
	Row     int64
	ID      string
	Version Version
	Doc     []byte
}

// AuditRow is an audit event. It never changes.
type AuditRow struct {
	// Seq is the order of commits; Commit assigns it.
	Seq int64
	// At is compared with Cutoffs.Audit. AuditQuery filters by it and by the other columns.
	At                                      time.Time
	Principal, Action, VM, Command, Outcome string
	Doc                                     []byte
}

// ChangeRow is an entry of the log of changes. It never changes.
type ChangeRow struct {
	// Seq is the order of changes across all commits, starting at one without gaps; Commit
	// assigns it.
	Seq int64
	At  time.Time
	VM  string
	// Pool is the pool that the VM is in after the commit, and Left the one that it was in
	// before if that is another one; empty for none.
	Pool, Left string
	// Kind is the type of the document.
	Kind string
	// Doc is as committed. The Doc of a change that refers to an event is the event's, or
	// empty if the event is no longer kept.
	Doc []byte
	// Event is used in a commit: the change refers to the event at this position in
	// Writes.Events, counted from one. Zero means none.
	Event int
	// EventSeq is the Seq of that event in lists, even if the event is no longer kept.
	EventSeq int64
}
