package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/mig-controller/mig-controller/internal/store"
)

// selection builds a query from filters.
type selection struct {
	where []string
	args  []any
}

func (s *selection) and(condition string, args ...any) {
	s.where = append(s.where, condition)
	s.args = append(s.args, args...)
}

// andIs requires a value in a column; it does nothing for an empty value.
func (s *selection) andIs(column, value string) {
	if value != "" {
		s.and(column+" = ?", value)
	}
}

// andBefore limits the row numbers; it does nothing for zero.
func (s *selection) andBefore(seq int64) {
	if seq != 0 {
		s.and("seq < ?", seq)
	}
}

func (s *selection) query(from, order string, limit int) (string, []any) {
	q := from
	if len(s.where) > 0 {
		q += " WHERE " + strings.Join(s.where, " AND ")
	}
	return q + " ORDER BY " + order + " LIMIT ?", append(s.args, oneMore(limit))
}

// oneMore is the LIMIT of a query: one more row shows whether there are more.
func oneMore(limit int) int { return max(limit, 0) + 1 }

// VMs lists VMs in order of their ids.
func (db *DB) VMs(ctx context.Context, q store.VMQuery, limit int) ([]store.VMRow, bool, error) {
	text, args := selectVMs(q, limit)
	return list(ctx, db, scanVM, limit, text, args)
}

func selectVMs(q store.VMQuery, limit int) (string, []any) {
	var s selection
	s.andIs("pool_id", q.Pool)
	s.andIs("org_id", q.Org)
	s.andIs("status", q.Status)
	switch {
	case q.Connected == nil:
	case *q.Connected:
		s.and("connected = 1") // the condition of the partial index
	default:
		s.and("connected = 0")
	}
	if q.After != "" {
		s.and("vm_id > ?", q.After)
	}
	const all = "SELECT " + vmColumns + " FROM vms"
	switch {
	case len(q.Pools) == 1 && q.Pool == "":
		s.andIs("pool_id", q.Pools[0])
	case len(q.Pools) > 0 && q.Pool != "": // usually one of them
		s.andOneOf("pool_id", q.Pools)
	case len(q.Pools) > 0:
		s.andOneOf("pool_id", q.Pools)
		return s.byKey(all, "SELECT vm_id FROM vms INDEXED BY vms_by_pool", "vm_id", "vm_id", limit)
	}
	return s.query(all, "vm_id", limit)
}

// Commands lists commands, highest Seq first.
func (db *DB) Commands(ctx context.Context, q store.CommandQuery, limit int) ([]store.CommandRow, bool, error) {
	if spansPools(q) {
		return db.commandsOfPools(ctx, q, limit)
	}
	text, args := selectCommands(q, limit)
	return list(ctx, db, scanCommand, limit, text, args)
}

// LastFinished lists the last finished command of each VM.
func (db *DB) LastFinished(ctx context.Context, q store.FinishedQuery, limit int) ([]store.CommandRow, bool, error) {
	text, args := selectLastFinished(q, limit)
	return list(ctx, db, scanCommand, limit, text, args)
}

// selectLastFinished relies on an SQLite feature: bare columns beside MAX are those of the
// same row. It reads only the documents of the listed rows.
func selectLastFinished(q store.FinishedQuery, limit int) (string, []any) {
	args := []any{q.Since.UnixNano(), q.After}
	for _, state := range q.States {
		args = append(args, state)
	}
	last := "SELECT seq AS n, MAX(finished_at) FROM commands INDEXED BY commands_finished" +
		" WHERE finished_at >= ? AND vm_id > ? AND " + stateIn(len(q.States)) + " GROUP BY vm_id ORDER BY vm_id LIMIT ?"
	// In the order of the groups: sorting the result would hold all of its documents in
	// memory.
	return "SELECT " + commandColumns + " FROM (" + last + ") CROSS JOIN commands ON seq = n",
		append(args, oneMore(limit))
}

func selectCommands(q store.CommandQuery, limit int) (string, []any) {
	var s selection
	s.andIs("vm_id", q.VM)
	s.andIs("type", q.Type)
	s.andStates(q.States)
	s.andBefore(q.Before)
	s.andOfPools("commands", q.Pools)
	return s.query("SELECT "+commandColumns+" FROM commands", "seq DESC", limit)
}

// Most commands are in one state, which has no index. The others are in partial indexes: in
// that of the queues, or in the one of their state.
const (
	commonState = "SUCCEEDED"
	inQueue     = "SELECT seq FROM commands INDEXED BY commands_queue WHERE queue IS NOT NULL"
	// This must equal the condition of the partial index.
	unqueued = "SELECT seq FROM commands INDEXED BY commands_unqueued" +
		" WHERE queue IS NULL AND state IN ('PENDING', 'DELIVERED')"
	isRare = "state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED')"
	rare   = "SELECT seq FROM commands WHERE " + isRare
)

// stateIn is the condition that a command is in one of so many states.
func stateIn(states int) string {
	return "state IN (" + strings.TrimSuffix(strings.Repeat("?,", states), ",") + ")"
}

// queuedStates are the usual states of commands in a queue.
var queuedStates = []string{"PENDING", "DELIVERED"}

// andStates requires one of these states, if there are any. The additional conditions
// exclude no rows; they only make SQLite choose an index.
func (s *selection) andStates(states []string) {
	if len(states) == 0 {
		return
	}
	states = slices.Clone(states)
	slices.Sort(states)
	states = slices.Compact(states)
	args := make([]any, len(states))
	for i, state := range states {
		args[i] = state
	}
	s.and(stateIn(len(args)), args...)
	isQueued := func(state string) bool { return slices.Contains(queuedStates, state) }
	isOther := func(state string) bool { return !isQueued(state) }
	switch {
	case slices.Contains(states, commonState):
	case !slices.ContainsFunc(states, isOther):
		s.and("seq IN (" + inQueue + " UNION ALL " + unqueued + ")")
	case !slices.ContainsFunc(states, isQueued):
		s.and(isRare)
	default:
		s.and("seq IN (" + inQueue + " UNION ALL " + unqueued + " UNION ALL " + rare + ")")
	}
}

// Events lists events, highest Seq first, or lowest first with After.
func (db *DB) Events(ctx context.Context, q store.EventQuery, limit int) ([]store.EventRow, bool, error) {
	if len(q.Pools) > 0 && q.VM == "" {
		return db.eventsOfPools(ctx, q, limit)
	}
	text, args := selectEvents(q, limit)
	return list(ctx, db, scanEvent, limit, text, args)
}

func selectEvents(q store.EventQuery, limit int) (string, []any) {
	var s selection
	s.andIs("vm_id", q.VM)
	s.andIs("type", q.Type)
	s.andReceived(q, "received_at")
	s.andBefore(q.Before)
	s.andOfPools("events", q.Pools)
	order := s.andAfter(q.After)
	return s.query("SELECT "+eventColumns+" FROM events", order, limit)
}

// andReceived bounds the time of receipt, which is in this column.
func (s *selection) andReceived(q store.EventQuery, column string) {
	if !q.Since.IsZero() {
		s.and(column+" >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		s.and(column+" < ?", q.Until.UnixNano())
	}
}

// andAfter limits the row numbers and returns the order of the list.
func (s *selection) andAfter(seq *int64) (order string) {
	if seq == nil {
		return "seq DESC"
	}
	s.and("seq > ?", *seq)
	return "seq"
}

// Heartbeats lists rows of heartbeats, latest At first.
func (db *DB) Heartbeats(ctx context.Context, q store.HeartbeatQuery, limit int) ([]store.HeartbeatRow, bool, error) {
	text, args := selectHeartbeats(q, limit)
	return list(ctx, db, scanHeartbeats, limit, text, args)
}

func selectHeartbeats(q store.HeartbeatQuery, limit int) (string, []any) {
	var s selection
	if !q.Before.IsZero() {
		s.and("at < ?", q.Before.UnixNano())
	}
	if q.VM != "" { // hash collisions also match a few other rows
		s.and("instr(vms, ?) > 0", hashes(q.VM))
	}
	return s.query("SELECT "+heartbeatColumns+" FROM heartbeats", "at DESC, seq DESC", limit)
}

// Changes lists changes, lowest Seq first.
func (db *DB) Changes(ctx context.Context, q store.ChangeQuery, limit int) (changes []store.ChangeRow, more bool, err error) {
	var purged int64
	err = db.read(ctx, func(c *conn) error {
		text, args := selectChanges(q, limit)
		if changes, more, err = page(ctx, c, scanChange, limit, text, args...); err != nil {
			return err
		}
		// Read after the rows, so that an earlier purge is detected.
		purged, err = c.number(ctx, mark, purgedChange)
		return err
	})
	switch {
	case err != nil:
		return nil, false, err
	case q.After < purged:
		return nil, false, store.ErrPurged
	default:
		return changes, more, nil
	}
}

func selectChanges(q store.ChangeQuery, limit int) (string, []any) {
	var s selection
	s.and("c.seq > ?", q.After)
	s.andIs("c.vm_id", q.VM)
	if len(q.Pools) > 0 {
		in, args := oneOf("c.pool_id", q.Pools)
		left, _ := oneOf("c.left_pool_id", q.Pools)
		s.and("("+in+" OR "+left+")", append(args, args...)...)
	}
	return s.query("SELECT "+changeColumns+" FROM "+changesWithEvents, "c.seq", limit)
}

const (
	maxChange = `SELECT COALESCE(MAX(seq), 0) FROM changes`
	mark      = `SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?`
	// purgedChange is the number of the last purged change.
	purgedChange = "purged_change"
)

// reservedNames are the driver's own names in meta, which callers' marks must not use.
var reservedNames = []string{"store_id", "checks", purgedChange}

// LastChange returns the number of the latest change.
func (db *DB) LastChange(ctx context.Context) (int64, error) { return db.number(ctx, maxChange) }

// Mark returns the number that was last committed with this name.
func (db *DB) Mark(ctx context.Context, name string) (int64, error) {
	return db.number(ctx, mark, name)
}

func (db *DB) number(ctx context.Context, q string, args ...any) (n int64, err error) {
	err = db.load(ctx, func(c *conn) (err error) {
		n, err = c.number(ctx, q, args...)
		return err
	})
	return n, err
}

// sized is a row with a document.
type sized interface{ Size() int }

// list runs a query for a list on a read connection.
func list[T sized](
	ctx context.Context, db *DB, scan func(*sql.Rows) (T, error), limit int, q string, args []any,
) (rows []T, more bool, err error) {
	err = db.read(ctx, func(c *conn) (err error) {
		rows, more, err = page(ctx, c, scan, limit, q, args...)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return rows, more, nil
}

// page returns the first rows of a query with a limit of oneMore, within the bounds of a
// list, and whether there are more.
func page[T sized](
	ctx context.Context, c *conn, scan func(*sql.Rows) (T, error), limit int, q string, args ...any,
) (list []T, more bool, err error) {
	var bound store.Bound
	var damage damage
	err = each(ctx, c, q, args, func(rows *sql.Rows) (bool, error) {
		row, err := scan(rows)
		if err != nil {
			return true, damage.note(err)
		}
		if more = !bound.Takes(limit, row.Size()); more {
			return false, nil
		}
		list = append(list, row)
		return true, nil
	})
	return list, more, cmp.Or(err, damage.err())
}

// query returns all rows of a query.
func query[T any](
	ctx context.Context, c *conn, scan func(*sql.Rows) (T, error), q string, args ...any,
) (all []T, err error) {
	var damage damage
	err = each(ctx, c, q, args, func(rows *sql.Rows) (bool, error) {
		row, err := scan(rows)
		if err == nil {
			all = append(all, row)
		}
		return true, damage.note(err)
	})
	return all, cmp.Or(err, damage.err())
}

// each calls fn with each row of a query, until it returns false or an error.
func each(ctx context.Context, c *conn, q string, args []any, fn func(*sql.Rows) (bool, error)) (err error) {
	stmt, err := c.stmt(ctx, q) //nolint:sqlclosecheck // closed with the connection
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if goOn, err := fn(rows); err != nil || !goOn {
			return err
		}
	}
	return rows.Err()
}
