// Package memory owns the smallest driver of package store: rows in maps, for tests.
package memory

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// DB is a database in memory. It is a store.Driver.
type DB struct {
	mu sync.RWMutex // guards the fields below
	content
	listeners map[*func(last int64)]bool
	closed    bool
}

// content is the content of a database.
type content struct {
	id         string
	vms        map[string]store.VMRow
	commands   map[string]store.CommandRow
	queues     map[[2]string]map[int64]string // by VM and name: ids of commands by their Seq
	events     map[int64]store.EventRow
	heartbeats map[int64]store.HeartbeatRow // by the order of their commits
	changes    map[int64]store.ChangeRow    // without the documents of events
	tokens     map[string]store.TokenRow
	audit      map[int64]store.AuditRow
	marks      map[string]int64
	aside      []asideRow
	// The latest numbers assigned, and the latest of those that were purged in order.
	lastVM, lastCommand, lastEvent, lastHeartbeat, lastChange int64
	lastToken, lastAudit                                      int64
	purgedHeartbeat, purgedChange                             int64
	// damagedChange is the latest change that was set aside.
	damagedChange int64
}

// New returns an empty database.
func New() *DB {
	return &DB{listeners: map[*func(int64)]bool{}, content: content{
		id: rand.Text(), vms: map[string]store.VMRow{}, commands: map[string]store.CommandRow{},
		queues: map[[2]string]map[int64]string{}, events: map[int64]store.EventRow{}, marks: map[string]int64{},
		heartbeats: map[int64]store.HeartbeatRow{}, changes: map[int64]store.ChangeRow{},
		tokens: map[string]store.TokenRow{}, audit: map[int64]store.AuditRow{},
	}}
}

// Crash closes the database and returns one with all that was committed.
func (db *DB) Crash() *DB {
	_ = db.Close()
	return &DB{listeners: map[*func(int64)]bool{}, content: db.content}
}

// ID identifies the database.
func (db *DB) ID() string { return db.id }

// Check returns nil unless the database is closed.
func (db *DB) Check(ctx context.Context) error {
	_, err := db.LastChange(ctx)
	return err
}

// Close closes the database.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.closed = true
	return nil
}

// usable returns the error of a call after Close or with a context that has ended.
func (db *DB) usable(ctx context.Context) error {
	if db.closed {
		return store.ErrClosed
	}
	return ctx.Err()
}

// Listen calls fn in Commit. A call of the database by fn would deadlock.
func (db *DB) Listen(fn func(last int64)) (stop func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.listeners[&fn] = true
	return func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		delete(db.listeners, &fn)
	}
}

// Commit makes all of the writes, or returns a *store.ConflictError and makes none.
func (db *DB) Commit(ctx context.Context, w store.Writes) (given store.Committed, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := cmp.Or(db.usable(ctx), db.conflict(w)); err != nil {
		return given, err
	}
	for _, row := range w.VMs {
		row.Version++
		if row.Row = db.vms[row.ID].Row; row.Row == 0 {
			db.lastVM++
			row.Row = db.lastVM
		}
		db.vms[row.ID] = own(row)
	}
	for _, row := range w.Commands {
		given.Commands = append(given.Commands, db.put(row))
	}
	for _, row := range w.Events {
		db.lastEvent++
		row.Seq = db.lastEvent
		db.events[row.Seq] = own(row)
		given.Events = append(given.Events, row.Seq)
	}
	for _, row := range w.Heartbeats {
		db.lastHeartbeat++
		row.Seq = db.lastHeartbeat
		db.heartbeats[db.lastHeartbeat] = own(row)
	}
	db.access(w)
	maps.Copy(db.marks, w.Marks)
	if len(w.Changes) > 0 {
		given.FirstChange = db.lastChange + 1
		db.log(w.Changes, given.Events)
	}
	return given, nil
}

// conflict returns the error that names the rows that have changed since they were loaded.
func (c *content) conflict(w store.Writes) error {
	var e store.ConflictError
	for _, row := range w.VMs {
		if row.Version != c.vms[row.ID].Version {
			e.VMs = append(e.VMs, row.ID)
		}
	}
	for _, row := range w.Commands {
		old := c.commands[row.ID]
		if row.Version != old.Version || row.Version == 0 && c.asideOf(store.ClassCommands, row.ID) > 0 || row.Seq != 0 && old.Seq != 0 && row.Seq != old.Seq {
			e.Commands = append(e.Commands, row.ID)
		}
	}
	for _, row := range w.Tokens {
		if row.Version != c.tokens[row.ID].Version {
			e.Tokens = append(e.Tokens, row.ID)
		}
	}
	if len(e.VMs)+len(e.Commands)+len(e.Tokens) > 0 {
		return &e
	}
	return nil
}

// put stores a command and returns its Seq.
func (c *content) put(row store.CommandRow) int64 {
	if old, found := c.commands[row.ID]; found {
		row.Seq = old.Seq
		delete(c.queues[[2]string{old.VM, old.Queue}], old.Seq)
	} else {
		c.lastCommand++
		row.Seq = c.lastCommand
	}
	row.Version++
	c.commands[row.ID] = own(row)
	q := [2]string{row.VM, row.Queue}
	if c.queues[q] == nil {
		c.queues[q] = map[int64]string{}
	}
	c.queues[q][row.Seq] = row.ID
	return row.Seq
}

// log stores changes and calls the listeners.
func (db *DB) log(changes []store.ChangeRow, events []int64) {
	for _, row := range changes {
		db.lastChange++
		row.Seq, row.EventSeq = db.lastChange, 0
		if row.Event > 0 {
			row.EventSeq, row.Event, row.Doc = events[row.Event-1], 0, nil
		}
		db.changes[row.Seq] = own(row)
	}
	for fn := range db.listeners {
		(*fn)(db.lastChange)
	}
}

// Purge removes expired rows.
func (db *DB) Purge(ctx context.Context, cut store.Cutoffs, limit int) (int, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usable(ctx); err != nil {
		return 0, err
	}
	// Rows with dates from a wrong clock do not delay the removal of later ones.
	past := func(at, cutoff time.Time) bool {
		return !cutoff.IsZero() && (at.Before(cutoff) || at.After(cut.Now.Add(24*time.Hour)))
	}
	n := purgeFirst(db.changes, &db.purgedChange, min(limit, len(db.changes)-1),
		func(row store.ChangeRow) bool { return past(row.At, cut.Changes) })
	n += purgeFirst(db.heartbeats, &db.purgedHeartbeat, min(limit, len(db.heartbeats)),
		func(row store.HeartbeatRow) bool { return past(row.At, cut.Heartbeats) })
	n += purge(db.events, limit, func(row store.EventRow) bool {
		return row.Seq <= cut.EventsThrough && row.ReceivedAt.Before(cut.Events)
	})
	n += purge(db.vms, limit, func(row store.VMRow) bool {
		return !row.Connected && !row.LastSeenAt.IsZero() && row.LastSeenAt.Before(cut.VMs)
	})
	n += purge(db.commands, limit, func(row store.CommandRow) bool {
		goes := !row.FinishedAt.IsZero() && row.FinishedAt.Before(cut.Commands)
		if goes {
			delete(db.queues[[2]string{row.VM, row.Queue}], row.Seq)
		}
		return goes
	})
	n += purge(db.audit, limit, func(row store.AuditRow) bool { return row.At.Before(cut.Audit) })
	return n, nil
}

// purgeFirst removes the first rows, up to one that has not expired.
func purgeFirst[R any](rows map[int64]R, purged *int64, limit int, past func(R) bool) (n int) {
	for ; n < limit && past(rows[*purged+1]); n++ {
		*purged++
		delete(rows, *purged)
	}
	return n
}

// purge removes rows. It calls past, which has side effects, only within the limit.
func purge[K comparable, R any](rows map[K]R, limit int, past func(R) bool) (n int) {
	for key, row := range rows {
		if n < limit && past(row) {
			delete(rows, key)
			n++
		}
	}
	return n
}

// own returns a deep copy of the row.
func own[R any](row R) R {
	switch r := any(&row).(type) {
	case *store.VMRow:
		r.Doc = slices.Clone(r.Doc)
	case *store.CommandRow:
		r.Doc = slices.Clone(r.Doc)
	case *store.EventRow:
		r.Doc = slices.Clone(r.Doc)
	case *store.HeartbeatRow:
		r.VMs, r.Doc = slices.Clone(r.VMs), slices.Clone(r.Doc)
	case *store.ChangeRow:
		r.Doc = slices.Clone(r.Doc)
	case *store.TokenRow:
		r.Doc = slices.Clone(r.Doc)
	case *store.AuditRow:
		r.Doc = slices.Clone(r.Doc)
	}
	return row
}
