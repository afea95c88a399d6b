package sqlite

import (
	"context"
	"fmt"
	"slices"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Commit makes all of the writes durable, or none, even when the disk is full. It waits for
// its turn until ctx ends; once it has begun it ignores ctx. It returns a
// *store.ConflictError when a row has changed since it was loaded.
func (db *DB) Commit(ctx context.Context, w store.Writes) (done store.Committed, err error) {
	err = db.write(ctx, func(ctx context.Context, c *conn) (last int64, err error) {
		done, err = c.commit(ctx, w)
		if n := int64(len(w.Changes)); err == nil && n > 0 {
			last = done.FirstChange + n - 1
		}
		db.checkpoints.erase = db.checkpoints.erase || w.Erase
		return last, err
	})
	if err != nil {
		return store.Committed{}, err
	}
	return done, nil
}

// commit makes the writes in the transaction of the connection.
func (c *conn) commit(ctx context.Context, w store.Writes) (done store.Committed, err error) {
	var conflict store.ConflictError
	if conflict.VMs, err = c.putVMs(ctx, w.VMs); err != nil {
		return done, fmt.Errorf("VM: %w", err)
	}
	if done.Commands, conflict.Commands, err = c.putCommands(ctx, w.Commands); err != nil {
		return done, fmt.Errorf("command: %w", err)
	}
	if conflict.Tokens, err = c.putTokens(ctx, w.Tokens); err != nil {
		return done, fmt.Errorf("token: %w", err)
	}
	if len(conflict.VMs)+len(conflict.Commands)+len(conflict.Tokens) > 0 {
		return done, &conflict
	}
	if done.Events, err = c.addEvents(ctx, w.Events); err != nil {
		return done, fmt.Errorf("event: %w", err)
	}
	if err := c.addHeartbeats(ctx, w.Heartbeats); err != nil {
		return done, fmt.Errorf("heartbeats: %w", err)
	}
	if done.FirstChange, err = c.addChanges(ctx, w.Changes, done.Events); err != nil {
		return done, fmt.Errorf("change: %w", err)
	}
	if err := c.removeTokens(ctx, w.RemovedTokens); err != nil {
		return done, fmt.Errorf("token: %w", err)
	}
	if err := c.addAudit(ctx, w.Audit); err != nil {
		return done, fmt.Errorf("audit: %w", err)
	}
	for name, n := range w.Marks {
		if slices.Contains(reservedNames, name) {
			return done, fmt.Errorf("mark: the name %s is reserved by the driver", name)
		}
		if err := c.putMark(ctx, name, n); err != nil {
			return done, fmt.Errorf("mark: %w", err)
		}
	}
	return done, nil
}

// putVMs writes the rows and returns the ids of those that have changed since they were
// loaded.
func (c *conn) putVMs(ctx context.Context, vms []store.VMRow) (conflicts []string, err error) {
	for i := range vms {
		n, err := c.putVM(ctx, &vms[i])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			conflicts = append(conflicts, vms[i].ID)
		}
	}
	return conflicts, nil
}

const (
	addVM = `INSERT INTO vms (vm_id, pool_id, org_id, status, connected, last_seen_at, due_at, version, doc)
		VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (vm_id) DO NOTHING`
	updateVM = `UPDATE vms SET pool_id = ?, org_id = ?, status = ?, connected = ?,
		last_seen_at = ?, due_at = ?, version = version + 1, doc = ? WHERE vm_id = ? AND version = ?`
	// touchVM is updateVM for a row whose filter columns are unchanged, the usual case.
	// SQLite writes to the indexes of all columns that a statement sets, whether or not
	// they change.
	touchVM = `UPDATE vms SET last_seen_at = ?, due_at = ?, version = version + 1, doc = ?
		WHERE vm_id = ? AND version = ? AND pool_id = ? AND org_id = ? AND status = ? AND connected = ?`
)

// putVM returns how many rows it has written.
func (c *conn) putVM(ctx context.Context, v *store.VMRow) (int64, error) {
	seen, due, doc, version := v.LastSeenAt.UnixNano(), timeOrNull(v.DueAt), blob(v.Doc), int64(v.Version)
	if v.Version == 0 {
		return c.affect(ctx, addVM, v.ID, v.Pool, v.Org, v.Status, v.Connected, seen, due, doc)
	}
	n, err := c.affect(ctx, touchVM, seen, due, doc, v.ID, version, v.Pool, v.Org, v.Status, v.Connected)
	if err != nil || n > 0 {
		return n, err
	}
	return c.affect(ctx, updateVM, v.Pool, v.Org, v.Status, v.Connected, seen, due, doc, v.ID, version)
}

// putCommands writes the rows. It returns the number of each, and the ids of those that
// have changed since they were loaded.
func (c *conn) putCommands(ctx context.Context, commands []store.CommandRow) (seqs []int64, conflicts []string, err error) {
	for i := range commands {
		put := c.updateCommand
		if commands[i].Version == 0 {
			put = c.addCommand
		}
		seq, written, err := put(ctx, &commands[i])
		if err != nil {
			return nil, nil, err
		}
		if written == 0 {
			conflicts = append(conflicts, commands[i].ID)
		}
		seqs = append(seqs, seq)
	}
	return seqs, conflicts, nil
}

func (c *conn) addCommand(ctx context.Context, r *store.CommandRow) (seq, written int64, err error) {
	res, err := c.exec(ctx, `INSERT INTO commands (id, vm_id, type, state, queue, due_at, finished_at, version, doc)
		SELECT ?, ?, ?, ?, ?, ?, ?, 1, ? WHERE `+isNotAside+` ON CONFLICT (id) DO NOTHING`,
		r.ID, r.VM, r.Type, r.State, textOrNull(r.Queue), timeOrNull(r.DueAt), timeOrNull(r.FinishedAt), blob(r.Doc), r.ID)
	if err != nil {
		return 0, 0, err
	}
	if written, err = res.RowsAffected(); err != nil {
		return 0, 0, err
	}
	seq, err = res.LastInsertId()
	return seq, written, err
}

func (c *conn) updateCommand(ctx context.Context, r *store.CommandRow) (seq, written int64, err error) {
	// A given number saves a search.
	if seq = r.Seq; seq == 0 {
		if seq, err = c.number(ctx, `SELECT seq FROM commands WHERE id = ?`, r.ID); err != nil {
			return 0, 0, err
		}
	}
	written, err = c.affect(ctx, `UPDATE commands SET state = ?, queue = ?, due_at = ?, finished_at = ?,
		version = version + 1, doc = ? WHERE seq = ? AND id = ? AND version = ?`,
		r.State, textOrNull(r.Queue), timeOrNull(r.DueAt), timeOrNull(r.FinishedAt), blob(r.Doc), seq, r.ID, int64(r.Version))
	return seq, written, err
}

// addEvents returns the number of each event.
func (c *conn) addEvents(ctx context.Context, events []store.EventRow) (seqs []int64, err error) {
	for i := range events {
		e := &events[i]
		seq, err := c.insert(ctx, `INSERT INTO events (vm_id, type, received_at, doc) VALUES (?, ?, ?, ?)`,
			e.VM, e.Type, e.ReceivedAt.UnixNano(), blob(e.Doc))
		if err != nil {
			return nil, err
		}
		seqs = append(seqs, seq)
	}
	return seqs, nil
}

func (c *conn) addHeartbeats(ctx context.Context, rows []store.HeartbeatRow) error {
	for i := range rows {
		_, err := c.exec(ctx, `INSERT INTO heartbeats (at, vms, docs) VALUES (?, ?, ?)`,
			rows[i].At.UnixNano(), hashes(rows[i].VMs...), blob(rows[i].Doc))
		if err != nil {
			return err
		}
	}
	return nil
}

// addChanges returns the number of the first change. The latest change is never removed,
// and SQLite assigns consecutive numbers, so there are no gaps.
func (c *conn) addChanges(ctx context.Context, changes []store.ChangeRow, events []int64) (first int64, err error) {
	for i := range changes {
		r := &changes[i]
		var event, doc any = nil, blob(r.Doc)
		if r.Event != 0 {
			if r.Event < 0 || r.Event > len(events) {
				return 0, fmt.Errorf("there is no event %d among %d", r.Event, len(events))
			}
			event, doc = events[r.Event-1], nil
		}
		seq, err := c.insert(ctx, `INSERT INTO changes (at, vm_id, pool_id, left_pool_id, kind, event_seq, doc)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, r.At.UnixNano(), r.VM, textOrNull(r.Pool), textOrNull(r.Left), r.Kind, event, doc)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			first = seq
		}
	}
	return first, nil
}

// putMark stores a number under a name.
func (c *conn) putMark(ctx context.Context, name string, n int64) error {
	_, err := c.exec(ctx, `INSERT INTO meta (key, value) VALUES (?, ?)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value`, name, n)
	return err
}
