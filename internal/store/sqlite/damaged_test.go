package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// damageIt runs a statement that the program would not run.
func damageIt(t *testing.T, db *DB, q string, args ...any) {
	t.Helper()
	require.NoError(t, db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
		_, err := c.exec(ctx, q, args...)
		return 0, err
	}))
}

// twoOfEach is a database with two rows of each class.
func twoOfEach(t *testing.T) *DB {
	t.Helper()
	db := openNew(t)
	var w store.Writes
	for _, id := range []string{"a", "b"} {
		v, c := vm(id), command(id)
		v.DueAt, c.VM, c.DueAt, c.FinishedAt, c.State = t0, id, t0, t0, "SUCCEEDED"
		w.VMs, w.Commands = append(w.VMs, v), append(w.Commands, c)
		w.Events = append(w.Events, store.EventRow{VM: id, Type: "t", ReceivedAt: t0, Doc: []byte("e")})
		w.Heartbeats = append(w.Heartbeats, store.HeartbeatRow{At: t0, VMs: []string{id}, Doc: []byte("h")})
		w.Changes = append(w.Changes, store.ChangeRow{At: t0, VM: id, Kind: "vm", Doc: []byte("c")})
		w.Tokens = append(w.Tokens, store.TokenRow{ID: id, Doc: []byte("t")})
		w.Audit = append(w.Audit, store.AuditRow{At: t0, Principal: "p", Action: "a", VM: id, Command: id, Outcome: "ok", Doc: []byte("a")})
	}
	commit(t, db, w)
	return db
}

// readersOf are the methods that return rows of a class, with the number of rows.
func readersOf(t *testing.T, db *DB, after int64) map[store.Class]map[string]func() (int, error) {
	t.Helper()
	ctx := t.Context()
	load := func(k store.Keys) (int, error) {
		rows, err := db.Load(ctx, k)
		return len(rows.VMs) + len(rows.Commands), err
	}
	due := func() (int, error) {
		rows, _, err := db.Due(ctx, t0, 9)
		return len(rows.VMs) + len(rows.Commands), err
	}
	return map[store.Class]map[string]func() (int, error){
		store.ClassVMs: {
			"Load": func() (int, error) { return load(store.Keys{VMs: []string{"a", "b"}}) },
			"VMs":  func() (int, error) { rows, _, err := db.VMs(ctx, store.VMQuery{}, 9); return len(rows), err },
			"Due":  func() (int, error) { n, err := due(); return n - 2, err },
		},
		store.ClassCommands: {
			"Load": func() (int, error) { return load(store.Keys{Commands: []string{"a", "b"}}) },
			"Commands": func() (int, error) {
				rows, _, err := db.Commands(ctx, store.CommandQuery{}, 9)
				return len(rows), err
			},
			"LastFinished": func() (int, error) {
				rows, _, err := db.LastFinished(ctx, store.FinishedQuery{States: []string{"SUCCEEDED"}}, 9)
				return len(rows), err
			},
			"Due": func() (int, error) { n, err := due(); return n - 2, err },
			"queues": func() (int, error) {
				n, err := load(store.Keys{VMs: []string{"a", "b"}, Queues: []string{"plain"}, Depth: 9})
				return n - 2, err
			},
		},
		store.ClassEvents: {"Events": func() (int, error) { rows, _, err := db.Events(ctx, store.EventQuery{}, 9); return len(rows), err }},
		store.ClassTokens: {"Tokens": func() (int, error) { rows, err := db.Tokens(ctx); return len(rows), err }},
		store.ClassAudit:  {"Audit": func() (int, error) { rows, _, err := db.Audit(ctx, store.AuditQuery{}, 9); return len(rows), err }},
		store.ClassHeartbeats: {"Heartbeats": func() (int, error) {
			rows, _, err := db.Heartbeats(ctx, store.HeartbeatQuery{}, 9)
			return len(rows), err
		}},
		store.ClassChanges: {"Changes": func() (int, error) {
			rows, _, err := db.Changes(ctx, store.ChangeQuery{After: after}, 9)
			return len(rows), err
		}},
	}
}

// A value of another type in any column makes only its own row a damaged one: each reader
// either names that row or does not read it, and once it is set aside all readers work. The
// stored statement restores exactly the original row.
func TestColumnsOfAnotherType(t *testing.T) {
	t.Parallel()
	for class, k := range keptClasses {
		for _, column := range append(k.columns, k.doc) {
			if column == "seq" || column == "vms" { // seq accepts only numbers, and vms is not read
				continue
			}
			for _, value := range []any{"x", []byte{0, 0xff}, -1} {
				t.Run(fmt.Sprintf("%s %s %T", class, column, value), func(t *testing.T) {
					t.Parallel()
					db := twoOfEach(t)
					requireOneDamaged(t, db, class, column, value)
				})
			}
		}
	}
}

func requireOneDamaged(t *testing.T, db *DB, class store.Class, column string, value any) {
	t.Helper()
	damageIt(t, db, fmt.Sprintf("UPDATE %s SET %s = ? WHERE rowid = 2", class, column), value)
	before := rawRow(t, db, string(class), 2)
	place := store.Place{Class: class, Row: 2}
	met := false
	for name, read := range readersOf(t, db, 0)[class] {
		_, err := read()
		var damaged *store.DamagedError
		if err != nil {
			require.ErrorAs(t, err, &damaged, name)
			require.Equal(t, []store.Place{place}, damaged.Places, name)
			met = true
		}
	}
	moved, err := db.SetAside(t.Context(), t0, []store.Place{{Class: class, Row: 1}, place, place}, store.Check{})
	require.NoError(t, err)
	require.Equal(t, met, len(moved) == 1, "a row that every reader accepts is not set aside")
	if !met {
		return
	}
	require.Equal(t, place, moved[0].Place)
	require.Contains(t, moved[0].Why, column)
	for of, some := range readersOf(t, db, 2) {
		for name, read := range some {
			n, err := read()
			require.NoError(t, err, name)
			if of == class && name != "Due" && of != store.ClassChanges {
				require.Equal(t, 1, n, name)
			}
		}
	}
	if class == store.ClassChanges {
		damageIt(t, db, "DELETE FROM changes WHERE seq = 2")
	}
	damageIt(t, db, restoreOf(t, db))
	require.Equal(t, before, rawRow(t, db, string(class), 2))
}

// rawRow is a row as SQLite stores it.
func rawRow(t *testing.T, db *DB, table string, row int64) string {
	t.Helper()
	var all []string
	require.NoError(t, db.read(t.Context(), func(c *conn) error {
		rows, err := c.sql.QueryContext(t.Context(), "SELECT * FROM "+table+" WHERE rowid = ?", row) //nolint:unqueryvet // all columns
		if err != nil {
			return err
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		values := make([]any, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return err
			}
			for i := range values {
				all = append(all, fmt.Sprintf("%s=%T %v", names[i], values[i], values[i]))
			}
		}
		return rows.Err()
	}))
	return strings.Join(all, ", ")
}

func restoreOf(t *testing.T, db *DB) (statement string) {
	t.Helper()
	require.NoError(t, db.read(t.Context(), func(c *conn) error {
		return c.sql.QueryRowContext(t.Context(), "SELECT restore FROM damaged").Scan(&statement)
	}))
	return statement
}

// An error of a failed read is not a damaged row.
func TestFailedReadsAreNotDamage(t *testing.T) {
	t.Parallel()
	db := twoOfEach(t)
	damageIt(t, db, "UPDATE events SET received_at = 'x' WHERE seq = 2")
	var damaged *store.DamagedError
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := db.Events(ended, store.EventQuery{}, 9)
	require.NotErrorAs(t, err, &damaged)
	require.ErrorIs(t, err, context.Canceled)
	err = db.read(t.Context(), func(c *conn) error {
		_, _, err := page(t.Context(), c, func(*sql.Rows) (store.EventRow, error) {
			return store.EventRow{}, damagedAt(store.ClassEvents, 2, sql.ErrConnDone)
		}, 9, "SELECT 1", nil...)
		return err
	})
	require.ErrorIs(t, err, sql.ErrConnDone)
	require.NotErrorAs(t, err, &damaged)
	require.NoError(t, db.Close())
	_, _, err = db.Events(t.Context(), store.EventQuery{}, 9)
	require.NotErrorAs(t, err, &damaged)
	_, err = db.SetAside(t.Context(), t0, []store.Place{{Class: store.ClassEvents, Row: 2}}, store.Check{})
	require.ErrorIs(t, err, store.ErrClosed)
}

// All damaged rows of a list are named at once, including those beyond its limit.
func TestManyDamagedRows(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var w store.Writes
	for n := range 1000 {
		w.Events = append(w.Events, store.EventRow{VM: "vm", Type: "t", ReceivedAt: t0.Add(time.Duration(n)), Doc: []byte("e")})
	}
	commit(t, db, w)
	damageIt(t, db, "UPDATE events SET type = x'00' WHERE seq % 2")
	_, _, err := db.Events(t.Context(), store.EventQuery{}, math.MaxInt32)
	var damaged *store.DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Len(t, damaged.Places, 500)
	moved, err := db.SetAside(t.Context(), t0, damaged.Places, store.Check{})
	require.NoError(t, err)
	require.Len(t, moved, 500)
	events, _, err := db.Events(t.Context(), store.EventQuery{}, math.MaxInt32)
	require.NoError(t, err)
	require.Len(t, events, 500)
}
