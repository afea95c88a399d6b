package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// tx is a transaction of the writer. VMs are read once, changed in memory and
// written once, when the transaction is flushed.
type tx struct {
	w       *writer
	vms     map[fleet.VMID]*vmEntry
	order   []fleet.VMID // of the first change, so that a flush is repeatable
	changes []fleet.Change
	purged  bool // VMs were
	wrote   bool // something was written
}

type vmEntry struct {
	known  bool // there is a row
	before fleet.VM
	now    fleet.VM
	dirty  bool
	heard  bool // dirty with nothing but what the VM is heard to say of itself
	at     time.Time
	row    rowState
	queue  queue
}

// unstoppable is the context of what the writer does: an operation that has
// begun is done or fails as a whole, whoever still waits for it.
var unstoppable = context.Background()

// stmt returns the prepared form of a query. The writer closes it at its end.
func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if s, ok := t.w.stmts[query]; ok {
		return s, nil
	}
	s, err := t.w.conn.PrepareContext(unstoppable, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	t.w.stmts[query] = s
	return s, nil
}

func (t *tx) run(query string, args ...any) (sql.Result, error) {
	t.wrote = true
	s, err := t.stmt(query) //nolint:sqlclosecheck // closed by the writer
	if err != nil {
		return nil, err
	}
	return s.ExecContext(unstoppable, args...)
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.run(query, args...)
	return err
}

// insert runs a statement and returns the number of the row it made.
func (t *tx) insert(query string, args ...any) (int64, error) {
	res, err := t.run(query, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// remove runs a statement and returns how many rows it removed.
func (t *tx) remove(query string, args ...any) (int64, error) {
	res, err := t.run(query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// scan reads one row. It returns fleet.ErrNotFound when there is none.
func (t *tx) scan(query string, args, dest []any) error {
	s, err := t.stmt(query) //nolint:sqlclosecheck // closed by the writer
	if err != nil {
		return err
	}
	err = s.QueryRowContext(unstoppable, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.ErrNotFound
	}
	return err
}

// entry returns the VM's entry, reading it the first time.
func (t *tx) entry(id fleet.VMID) (*vmEntry, error) {
	if e, ok := t.vms[id]; ok {
		return e, nil
	}
	if c, ok := t.w.cache.get(id); ok {
		e := t.w.spare.entry()
		e.known, e.before, e.now, e.row, e.queue = true, c.vm, c.vm, c.row, c.queue
		t.vms[id] = e
		return e, nil
	}
	e := t.w.spare.entry()
	var doc []byte
	switch err := t.scan(`SELECT doc, last_beat FROM vms WHERE vm_id = ?`,
		[]any{string(id)}, []any{&doc, &e.row.lastBeat}); {
	case errors.Is(err, fleet.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(doc, &e.before); err != nil {
			return nil, fmt.Errorf("%w: read VM: %w", errBroken, err)
		}
		e.known, e.now = true, e.before
	}
	t.vms[id] = e
	return e, nil
}

// vm returns the VM as it is in this transaction. It returns fleet.ErrNotFound
// for one never heard of.
func (t *tx) vm(id fleet.VMID) (fleet.VM, error) {
	e, err := t.entry(id)
	if err != nil {
		return fleet.VM{}, err
	}
	if !e.known && !e.dirty {
		return fleet.VM{}, fleet.ErrNotFound
	}
	return e.now, nil
}

// vmOrNew is vm, with a new VM for one never heard of.
func (t *tx) vmOrNew(id fleet.VMID, now time.Time) (fleet.VM, error) {
	v, err := t.vm(id)
	if errors.Is(err, fleet.ErrNotFound) {
		return fleet.NewVM(id, now), nil
	}
	return v, err
}

// putVM sets the VM as of now. entry has read it before.
func (t *tx) putVM(v fleet.VM, now time.Time) {
	t.put(v, now).heard = false
}

// putHeard is putVM for a load and the time the VM was last heard of, if they
// are in a heartbeat as well: they need not be in the VM's row at once.
func (t *tx) putHeard(v fleet.VM, now time.Time) {
	heard := t.vms[v.ID].heard || !t.vms[v.ID].dirty
	t.put(v, now).heard = heard
}

func (t *tx) put(v fleet.VM, now time.Time) *vmEntry {
	e := t.vms[v.ID]
	if !e.dirty {
		t.order = append(t.order, v.ID)
	}
	e.now, e.dirty, e.at = v, true, now
	return e
}

// flush writes the VMs that were put.
func (t *tx) flush() error {
	for _, id := range t.order {
		e := t.vms[id]
		differs := !e.known || e.now.Differs(e.before)
		if e.row.ahead = e.heard && !differs && e.now.Connected && e.at.Sub(e.row.writtenAt) < rowEvery; e.row.ahead {
			continue
		}
		e.row.writtenAt = e.at
		doc, err := json.Marshal(e.now)
		if err != nil {
			return fmt.Errorf("write VM: %w", err)
		}
		if err := t.writeVM(e, doc); err != nil {
			return fmt.Errorf("write VM: %w", err)
		}
		if !differs {
			continue
		}
		v := e.now
		if err := t.change(fleet.Change{At: e.at, Subject: id, VM: &v}, doc, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// writeVM writes a row. What no index is about is all that most changes touch.
func (t *tx) writeVM(e *vmEntry, doc []byte) error {
	v, old := e.now, e.before
	if e.known && !t.purged && v.Pool == old.Pool && v.Org == old.Org && v.Status == old.Status && v.Connected == old.Connected {
		return t.exec(`UPDATE vms SET last_seen_at = ?, last_beat = ?, doc = ? WHERE vm_id = ?`,
			v.LastSeenAt.UnixNano(), e.row.lastBeat, doc, string(v.ID))
	}
	return t.exec(`INSERT INTO vms (vm_id, pool_id, org_id, status, connected, last_seen_at, last_beat, doc)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (vm_id) DO UPDATE SET pool_id = excluded.pool_id, org_id = excluded.org_id,
		status = excluded.status, connected = excluded.connected,
		last_seen_at = excluded.last_seen_at, last_beat = excluded.last_beat, doc = excluded.doc`,
		string(v.ID), v.Pool, v.Org, v.Status, v.Connected, v.LastSeenAt.UnixNano(), e.row.lastBeat, doc)
}

// change appends to the log of changes. The documents are those of c's parts.
func (t *tx) change(c fleet.Change, vm, command []byte, eventSeq any) error {
	seq, err := t.insert(`INSERT INTO changes (at, vm_id, vm, command, event_seq) VALUES (?, ?, ?, ?, ?)`,
		c.At.UnixNano(), string(c.Subject), vm, command, eventSeq)
	if err != nil {
		return fmt.Errorf("write change: %w", err)
	}
	c.Seq = seq
	t.changes = append(t.changes, c)
	return nil
}

// unixOrNull is the column form of a time: null for none.
func unixOrNull(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UnixNano()
}
