package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// kept is how the rows of a class are set aside.
type kept struct {
	// query selects a row by its rowid.
	query string
	scan  func(*sql.Rows) (any, error)
	// columns are all columns except the document, which is in the column doc.
	columns []string
	doc     string
	// id and vm are the columns with the id of the row and with its VM; empty for none.
	id, vm string
	// remove removes a row by its rowid.
	remove string
}

var keptClasses = map[store.Class]kept{
	store.ClassVMs: {
		query: "SELECT " + vmColumns + " FROM vms WHERE rowid = ?", scan: scanAny(scanVM),
		columns: []string{"vm_id", "pool_id", "org_id", "status", "connected", "last_seen_at", "due_at", "version"},
		doc:     "doc", id: "vm_id", vm: "vm_id", remove: "DELETE FROM vms WHERE rowid = ?",
	},
	store.ClassCommands: {
		query: "SELECT " + commandColumns + " FROM commands WHERE seq = ?", scan: scanAny(scanCommand),
		columns: []string{"seq", "id", "vm_id", "type", "state", "queue", "due_at", "finished_at", "version"},
		doc:     "doc", id: "id", vm: "vm_id", remove: "DELETE FROM commands WHERE seq = ?",
	},
	store.ClassEvents: {
		query: "SELECT " + eventColumns + " FROM events WHERE seq = ?", scan: scanAny(scanEvent),
		columns: []string{"seq", "vm_id", "type", "received_at"},
		doc:     "doc", vm: "vm_id", remove: "DELETE FROM events WHERE seq = ?",
	},
	store.ClassHeartbeats: {
		query: "SELECT " + heartbeatColumns + " FROM heartbeats WHERE seq = ?", scan: scanAny(scanHeartbeats),
		columns: []string{"seq", "at", "vms"},
		doc:     "docs", remove: "DELETE FROM heartbeats WHERE seq = ?",
	},
	store.ClassTokens: {
		query: "SELECT " + tokenColumns + " FROM tokens WHERE rowid = ?", scan: scanAny(scanToken),
		columns: []string{"id", "version"},
		doc:     "doc", id: "id", remove: "DELETE FROM tokens WHERE rowid = ?",
	},
	store.ClassAudit: {
		query: "SELECT " + auditColumns + " FROM audit WHERE seq = ?", scan: scanAny(scanAudit),
		columns: []string{"seq", "at", "principal", "action", "vm_id", "command_id", "outcome"},
		doc:     "doc", vm: "vm_id", remove: "DELETE FROM audit WHERE seq = ?",
	},
	store.ClassChanges: {
		query: "SELECT " + changeColumns + " FROM " + changesWithEvents + " WHERE c.seq = ?", scan: scanAny(scanChange),
		columns: []string{"seq", "at", "vm_id", "pool_id", "left_pool_id", "kind", "event_seq"},
		doc:     "doc", vm: "vm_id",
		// Its number remains in use until it is purged like others.
		remove: `UPDATE changes SET at = iif(typeof(at) = 'integer', at, 0), vm_id = '', pool_id = NULL, left_pool_id = NULL,
			kind = '', event_seq = NULL, doc = NULL WHERE seq = ?`,
	},
}

func scanAny[R any](scan func(*sql.Rows) (R, error)) func(*sql.Rows) (any, error) {
	return func(rows *sql.Rows) (any, error) { return scan(rows) }
}

// SetAside moves damaged rows into the table damaged, in one transaction.
func (db *DB) SetAside(ctx context.Context, at time.Time, places []store.Place, check store.Check) (moved []store.Aside, err error) {
	err = db.write(ctx, func(ctx context.Context, c *conn) (int64, error) {
		for _, place := range places {
			k, ok := keptClasses[place.Class]
			if !ok {
				return 0, fmt.Errorf("there is no class %q", place.Class)
			}
			why, err := c.fault(ctx, k, place.Row, check)
			if err != nil {
				return 0, err
			}
			if why == nil {
				continue
			}
			aside := store.Aside{Place: place, Why: why.Error(), At: at}
			if err := c.setAside(ctx, k, &aside); err != nil {
				return 0, fmt.Errorf("set aside row %d of %s: %w", place.Row, place.Class, err)
			}
			moved = append(moved, aside)
		}
		return 0, nil
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// fault returns the reason why a row is damaged; nil if it is not, or does not exist.
func (c *conn) fault(ctx context.Context, k kept, row int64, check store.Check) (why, err error) {
	err = each(ctx, c, k.query, []any{row}, func(rows *sql.Rows) (bool, error) {
		read, err := k.scan(rows)
		if damaged, ok := errors.AsType[*damagedRowError](err); ok {
			why = damaged.error
			return true, nil
		}
		if err == nil {
			why = check.Fault(read)
		}
		return true, err
	})
	return why, err
}

// setAside moves a row, and fills in what the table damaged contains about it.
func (c *conn) setAside(ctx context.Context, k kept, a *store.Aside) (err error) {
	a.Number, err = c.insert(ctx, k.keep(a.Class), string(a.Class), a.Row, a.Why, a.At.UnixNano(), a.Row)
	if err != nil {
		return err
	}
	if _, err := c.exec(ctx, `UPDATE damaged SET restore = restore || number WHERE number = ?`, a.Number); err != nil {
		return err
	}
	err = each(ctx, c, `SELECT id, vm_id FROM damaged WHERE number = ?`, []any{a.Number}, func(rows *sql.Rows) (bool, error) {
		return true, rows.Scan((*anyText)(&a.ID), (*anyText)(&a.VM))
	})
	if err != nil {
		return err
	}
	if _, err := c.exec(ctx, k.remove, a.Row); err != nil {
		return err
	}
	if a.Class == store.ClassChanges {
		return c.purgedThrough(ctx, a.Row)
	}
	return nil
}

// keep returns the statement that copies a row into the table damaged. The stored statement
// that restores the row lacks the number at its end.
func (k kept) keep(class store.Class) string {
	values := make([]string, len(k.columns))
	for i, column := range k.columns {
		values[i] = "quote(" + column + ")"
	}
	restore := fmt.Sprintf("'INSERT INTO %s (%s, %s) SELECT ' || %s || ', doc FROM damaged WHERE number = '",
		class, strings.Join(k.columns, ", "), k.doc, strings.Join(values, " || ', ' || "))
	return fmt.Sprintf(`INSERT INTO damaged (class, row, why, found_at, id, vm_id, restore, doc)
		SELECT ?, ?, ?, ?, %s, %s, %s, %s FROM %s WHERE rowid = ?`, textOf(k.id), textOf(k.vm), restore, k.doc, class)
}

// textOf is the text in a column; NULL if it has another type.
func textOf(column string) string {
	if column == "" {
		return "NULL"
	}
	return fmt.Sprintf("iif(typeof(%[1]s) = 'text', %[1]s, NULL)", column)
}

// purgedThrough records that this change and all before it can no longer be listed.
func (c *conn) purgedThrough(ctx context.Context, change int64) error {
	before, err := c.number(ctx, mark, purgedChange)
	if err != nil || before >= change {
		return err
	}
	return c.putMark(ctx, purgedChange, change)
}

const (
	anyAside   = `SELECT EXISTS (SELECT 1 FROM damaged)`
	lastAside  = `SELECT COALESCE(MAX(number), 0) FROM damaged WHERE class = ? AND id = ?`
	isNotAside = `NOT EXISTS (SELECT 1 FROM damaged WHERE class = 'commands' AND id = ?)`
)

// aside returns the latest number of each of the ids whose row was set aside and not
// replaced; nil for none.
func (l *loading) aside(ctx context.Context, class store.Class, ids []string, hasRow map[string]bool) (map[string]int64, error) {
	var found map[string]int64
	for _, id := range ids {
		if hasRow[id] {
			continue
		}
		n, err := l.conn.number(ctx, lastAside, string(class), id)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		if found == nil {
			found = map[string]int64{}
		}
		found[id] = n
	}
	return found, nil
}

// asides adds the requested rows that were set aside and not replaced.
func (l *loading) asides(ctx context.Context) error {
	vms, commands := map[string]bool{}, map[string]bool{}
	for _, row := range l.rows.VMs {
		vms[row.ID] = true
	}
	for _, row := range l.rows.Commands {
		commands[row.ID] = true
	}
	missing := func(ids []string, hasRow map[string]bool) bool {
		for _, id := range ids {
			if !hasRow[id] {
				return true
			}
		}
		return false
	}
	if !missing(l.keys.VMs, vms) && !missing(l.keys.Commands, commands) {
		return nil
	}
	if some, err := l.conn.number(ctx, anyAside); err != nil || some == 0 {
		return err
	}
	var err error
	if l.rows.Aside.VMs, err = l.aside(ctx, store.ClassVMs, l.keys.VMs, vms); err != nil {
		return err
	}
	l.rows.Aside.Commands, err = l.aside(ctx, store.ClassCommands, l.keys.Commands, commands)
	return err
}
