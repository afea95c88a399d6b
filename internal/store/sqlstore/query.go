package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// selection builds a query from the filters that are set.
type selection struct {
	where []string
	args  []any
}

func (s *selection) and(condition string, args ...any) {
	s.where = append(s.where, condition)
	s.args = append(s.args, args...)
}

func (s *selection) query(from, order string, limit int) (string, []any) {
	q := from
	if len(s.where) > 0 {
		q += " WHERE " + strings.Join(s.where, " AND ")
	}
	return q + " ORDER BY " + order + " LIMIT ?", append(s.args, limit)
}

// Command returns one command.
func (db *DB) Command(ctx context.Context, id fleet.CommandID) (fleet.Command, error) {
	return one(db.commands(ctx, `SELECT seq, doc FROM commands WHERE id = ?`, string(id)))
}

// isOpen has the index of the commands that have not ended used, and isFailed, word
// for word, that of those that ended without success.
const (
	isOpen   = "seq IN (SELECT seq FROM commands WHERE due_at > 0)"
	isFailed = "state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED')"
)

// Commands lists commands, the latest accepted first.
func (db *DB) Commands(ctx context.Context, f store.CommandFilter, p store.Page) ([]fleet.Command, error) {
	q, args := selectCommands(f, p)
	return db.commands(ctx, q, args...)
}

func selectCommands(f store.CommandFilter, p store.Page) (string, []any) {
	var s selection
	if f.VM != "" {
		s.and("vm_id = ?", string(f.VM))
	}
	if f.Type != "" {
		s.and("type = ?", f.Type)
	}
	if len(f.States) > 0 {
		s.andStates(f.States)
	}
	if p.Before > 0 {
		s.and("seq < ?", p.Before)
	}
	return s.query("SELECT seq, doc FROM commands", "seq DESC", p.Size)
}

// andStates adds a filter by state. There is no index for the successes, which
// most commands are.
func (s *selection) andStates(states []fleet.CommandState) {
	states = slices.Clone(states)
	slices.Sort(states)
	states = slices.Compact(states)
	var args []any
	for _, state := range states {
		args = append(args, string(state))
	}
	s.and("state IN ("+strings.TrimSuffix(strings.Repeat("?,", len(args)), ",")+")", args...)
	open := func(s fleet.CommandState) bool { return !s.Terminal() }
	switch {
	case slices.Contains(states, fleet.Succeeded):
	case !slices.ContainsFunc(states, fleet.CommandState.Terminal):
		s.and(isOpen)
	case !slices.ContainsFunc(states, open):
		s.and(isFailed)
	default:
		s.and("seq IN (SELECT seq FROM commands WHERE due_at > 0 UNION ALL SELECT seq FROM commands WHERE " + isFailed + ")")
	}
}

// VM returns one VM.
func (db *DB) VM(ctx context.Context, id fleet.VMID) (fleet.VM, error) {
	if v, ok := db.writer.cache.get(id); ok {
		return v.vm, nil
	}
	return one(db.vms(ctx, `SELECT doc FROM vms WHERE vm_id = ?`, string(id)))
}

// VMs lists VMs in the order of their ids.
func (db *DB) VMs(ctx context.Context, f store.VMFilter, p store.Page) ([]fleet.VM, error) {
	var s selection
	if f.Pool != "" {
		s.and("pool_id = ?", f.Pool)
	}
	if f.Org != "" {
		s.and("org_id = ?", f.Org)
	}
	if f.Status != "" {
		s.and("status = ?", f.Status)
	}
	switch {
	case f.Connected == nil:
	case *f.Connected:
		s.and("connected = 1") // as the partial index says it
	default:
		s.and("connected = 0")
	}
	if p.After != "" {
		s.and("vm_id > ?", string(p.After))
	}
	q, args := s.query("SELECT doc FROM vms", "vm_id", p.Size)
	return db.vms(ctx, q, args...)
}

// Events lists events, the latest received first.
func (db *DB) Events(ctx context.Context, f store.EventFilter, p store.Page) ([]fleet.Event, error) {
	var s selection
	if f.VM != "" {
		s.and("vm_id = ?", string(f.VM))
	}
	if f.Type != "" {
		s.and("type = ?", f.Type)
	}
	if !f.Since.IsZero() {
		s.and("received_at >= ?", f.Since.UnixNano())
	}
	if !f.Until.IsZero() {
		s.and("received_at < ?", f.Until.UnixNano())
	}
	if p.Before > 0 {
		s.and("seq < ?", p.Before)
	}
	q, args := s.query("SELECT seq, doc FROM events", "seq DESC", p.Size)
	return db.events(ctx, q, args...)
}

// Changes returns what came after the change with this Seq. What is not durable
// yet is left out: after a loss of power other changes would have its numbers.
func (db *DB) Changes(
	ctx context.Context, f store.ChangeFilter, after int64, limit int,
) ([]fleet.Change, error) {
	var s selection
	s.and("c.seq > ?", after)
	s.and("c.seq <= ?", db.writer.told.Load())
	if f.VM != "" {
		s.and("c.vm_id = ?", string(f.VM))
	}
	q, args := s.query(`SELECT c.seq, c.at, c.vm_id, c.vm, c.command, c.event_seq, e.doc
		FROM changes c LEFT JOIN events e ON e.seq = c.event_seq`, "c.seq", limit)
	changes, err := query(ctx, db, scanChange, q, args...)
	if err != nil {
		return nil, err
	}
	// Asked after the rows were read: what was purged before is noticed.
	purged, err := db.number(ctx, `SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'purged_change'`)
	if err == nil && after < purged {
		err = fleet.ErrCursorExpired
	}
	return changes, err
}

const lastChange = `SELECT COALESCE(MAX(seq), 0) FROM changes`

// LastChange returns the Seq of the latest change that is durable.
func (db *DB) LastChange(ctx context.Context) (int64, error) {
	last, err := db.number(ctx, lastChange)
	return min(last, db.writer.told.Load()), err
}

func scanChange(r *sql.Rows) (c fleet.Change, err error) {
	var at int64
	var vm string
	var vmDoc, commandDoc, eventDoc []byte
	var eventSeq sql.NullInt64
	if err := r.Scan(&c.Seq, &at, &vm, &vmDoc, &commandDoc, &eventSeq, &eventDoc); err != nil {
		return c, err
	}
	c.At, c.Subject = time.Unix(0, at).UTC(), fleet.VMID(vm)
	switch {
	case vmDoc != nil:
		c.VM = new(fleet.VM)
		return c, json.Unmarshal(vmDoc, c.VM)
	case commandDoc != nil:
		c.Command = new(fleet.Command)
		return c, json.Unmarshal(commandDoc, c.Command)
	case eventDoc != nil:
		c.Event = &fleet.Event{Seq: eventSeq.Int64}
		return c, json.Unmarshal(eventDoc, c.Event)
	default: // the event is no longer kept
		c.Event = &fleet.Event{Seq: eventSeq.Int64, Origin: fleet.Origin{VM: c.Subject, ReceivedAt: c.At}}
		return c, nil
	}
}

func (db *DB) commands(ctx context.Context, q string, args ...any) ([]fleet.Command, error) {
	return query(ctx, db, scanCommand, q, args...)
}

func (db *DB) vms(ctx context.Context, q string, args ...any) ([]fleet.VM, error) {
	return query(ctx, db, func(r *sql.Rows) (v fleet.VM, err error) {
		var doc []byte
		if err := r.Scan(&doc); err != nil {
			return v, err
		}
		err = json.Unmarshal(doc, &v)
		return db.writer.cache.complete(v), err
	}, q, args...)
}

func (db *DB) events(ctx context.Context, q string, args ...any) ([]fleet.Event, error) {
	return query(ctx, db, func(r *sql.Rows) (e fleet.Event, err error) {
		var doc []byte
		if err := r.Scan(&e.Seq, &doc); err != nil {
			return e, err
		}
		err = json.Unmarshal(doc, &e)
		return e, err
	}, q, args...)
}

func (db *DB) number(ctx context.Context, q string) (int64, error) {
	return one(query(ctx, db, func(r *sql.Rows) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, q))
}

// errEnough is what a scan returns when no more rows are needed.
var errEnough = errors.New("enough rows")

// query reads rows outside the writer: what was committed before it began. Its
// errors wrap fleet.ErrUnavailable.
func query[T any](
	ctx context.Context, db *DB, scan func(*sql.Rows) (T, error), q string, args ...any,
) (all []T, err error) {
	stmt, err := db.readStmt(ctx, q) //nolint:sqlclosecheck // closed with the store
	if err != nil {
		return nil, readError(ctx, err)
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, readError(ctx, err)
	}
	if all, err = collect(rows, scan); err != nil {
		return nil, readError(ctx, err)
	}
	return all, nil
}

// collect scans all rows, or as many as are enough, and closes them.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (all []T, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row, err := scan(rows)
		if errors.Is(err, errEnough) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// readStmt returns the prepared form of a query. There are not many: a filter is
// there or not, and states are distinct and in order.
func (db *DB) readStmt(ctx context.Context, q string) (*sql.Stmt, error) {
	db.readMu.Lock()
	defer db.readMu.Unlock()
	if db.readStmts == nil {
		return nil, errClosed
	}
	if s, ok := db.readStmts[q]; ok {
		return s, nil
	}
	s, err := db.read.PrepareContext(ctx, q) //nolint:sqlclosecheck // closed with the store
	if err != nil {
		return nil, err
	}
	db.readStmts[q] = s
	return s, nil
}

// errClosed occurs when the store is read after its close.
var errClosed = errors.New("closed")

// closeReadStmts closes what readStmt has prepared. Reads that are under way
// fail.
func (db *DB) closeReadStmts() error {
	db.readMu.Lock()
	defer db.readMu.Unlock()
	var errs []error
	for _, s := range db.readStmts {
		errs = append(errs, s.Close())
	}
	db.readStmts = nil
	return errors.Join(errs...)
}

func readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: read: %w", fleet.ErrUnavailable, err)
}

// one returns the only element, or fleet.ErrNotFound.
func one[T any](all []T, err error) (T, error) {
	var none T
	switch {
	case err != nil:
		return none, err
	case len(all) == 0:
		return none, fleet.ErrNotFound
	default:
		return all[0], nil
	}
}
