package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The keys of log lines.
const (
	keyCount = "count"
	keyError = "error"
	keyPanic = "panic"
	keyStack = "stack"
)

// maxGroup is the most operations one transaction takes: what bounds how long
// the first waits for the last.
const maxGroup = 512

// writer owns the one connection that writes. Operations that arrive while a
// transaction is being committed share the next one.
type writer struct {
	conn    *sql.Conn
	stmts   map[string]*sql.Stmt
	cache   *cache
	spare   spare
	early   *listeners // of changes that are about to be durable
	durable *listeners
	untold  []fleet.Change // to the listeners of what is durable
	log     *slog.Logger

	wal      logFile
	unsynced bool         // something was committed since the last sync
	stuck    atomic.Bool  // while syncs fail: nothing new is taken
	told     atomic.Int64 // the latest change that is shown to those who follow

	ops      chan *op
	stopping chan struct{}
	stopOnce sync.Once
	done     chan struct{}
}

// op is one caller's part of a transaction. run may run more than once: when a
// transaction fails, each of its operations is tried again by itself.
type op struct {
	run  func(*tx) error
	lazy bool // need not survive a loss of power
	err  error
	done chan struct{}
}

// logFile is the write-ahead log, which the writer syncs.
type logFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// startWriter starts the writer of a database whose latest change is last.
func startWriter(conn *sql.Conn, wal logFile, last int64, early, durable *listeners, log *slog.Logger) *writer {
	w := &writer{
		conn: conn, stmts: map[string]*sql.Stmt{}, cache: newCache(), early: early, durable: durable, log: log, wal: wal,
		ops: make(chan *op, maxGroup), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	w.told.Store(last)
	go w.loop()
	return w
}

// update runs fn in a transaction shared with others and returns once it is
// committed and synced. fn's error, if it is one of the domain, is returned as it is, and
// what fn had written before it is kept; after any other error nothing of fn is
// kept and the error wraps fleet.ErrUnavailable, unless to try fn again is of no
// use.
//
// A context that ends while the operation waits for the writer does not stop
// it: whether it was done is then for the store to know.
func (db *DB) update(ctx context.Context, fn func(*tx) error) error {
	return db.do(ctx, &op{run: fn})
}

// updateLazily is update for what survives a killed process at once, but a loss
// of power only once something after it was committed by update.
func (db *DB) updateLazily(ctx context.Context, fn func(*tx) error) error {
	return db.do(ctx, &op{run: fn, lazy: true})
}

func (db *DB) do(ctx context.Context, o *op) error {
	if db.writer.stuck.Load() {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, errNotSynced)
	}
	o.done = make(chan struct{})
	select {
	case db.writer.ops <- o:
	case <-db.writer.stopping:
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, errClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-o.done:
		return o.err
	case <-db.writer.done:
		select {
		case <-o.done:
			return o.err
		default:
			return fmt.Errorf("%w: %w", fleet.ErrUnavailable, errClosed)
		}
	}
}

// stop ends the writer after what is queued has been committed.
func (w *writer) stop() {
	w.stopOnce.Do(func() { close(w.stopping) })
	<-w.done
}

func (w *writer) loop() {
	defer close(w.done)
	defer w.release()
	for {
		select {
		case o := <-w.ops:
			w.commit(w.gather(o))
		case <-w.stopping:
			for len(w.ops) > 0 {
				w.commit(w.gather(<-w.ops))
			}
			w.writeRows()
			return
		}
	}
}

// writeRows writes all rows that lack something.
func (w *writer) writeRows() {
	behind := w.cache.behind(endOfTime)
	if len(behind) == 0 {
		return
	}
	err := w.transact([]*op{{run: func(t *tx) error { return t.writeRows(behind) }}})
	if err == nil {
		err = w.secure()
	}
	if err != nil {
		w.log.Warn("when VMs were last heard of not written, heartbeats tell it", keyCount, len(behind), keyError, err)
	}
}

// release closes the statements before their connection. SQLite keeps a
// connection that has open ones, and then does not write its log back into the
// database file when the last connection is closed.
func (w *writer) release() {
	for _, s := range w.stmts {
		_ = s.Close() // Nothing is under way that could fail.
	}
	_ = w.conn.Close() // It goes back to its pool, whose close tells.
	w.cache.clear()    // A closed store answers nothing.
}

func (w *writer) gather(first *op) []*op {
	group := []*op{first}
	for len(group) < maxGroup {
		select {
		case o := <-w.ops:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

// commit runs a group, has it synced unless none of it needs to be, answers
// everybody and tells of the changes.
func (w *writer) commit(group []*op) {
	w.settle(group)
	var err error
	if slices.ContainsFunc(group, func(o *op) bool { return !o.lazy }) {
		err = w.secure()
	}
	told := w.untold
	w.untold = nil
	if err != nil {
		told = nil
	}
	if len(told) > 0 { // before the answer: who has it sees what it asked for
		w.told.Store(told[len(told)-1].Seq)
	}
	for _, o := range group {
		if err != nil {
			o.err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
		}
		close(o.done)
	}
	w.durable.tell(told)
}

// errNotSynced occurs while the disk does not take what was committed.
var errNotSynced = errors.New("the log of the database cannot be synced")

// secure makes durable what was committed. While the disk refuses, it goes on
// trying until the store is closed: what was committed cannot be taken back, so
// nobody is told that it was not done.
func (w *writer) secure() error {
	if !w.unsynced {
		return nil
	}
	sync := w.wal.Sync
	if w.stuck.Load() { // since it was told to stop
		sync = w.resync
	}
	err := sync()
	for wait := firstResync; err != nil; wait = min(2*wait, lastResync) {
		if !w.stuck.Swap(true) {
			w.log.Error("log of the database not synced, trying again", keyError, err)
		}
		select {
		case <-time.After(wait):
		case <-w.stopping:
			return fmt.Errorf("%w: %w", errNotSynced, err)
		}
		err = w.resync()
	}
	if w.stuck.Swap(false) {
		w.log.Info("log of the database synced again")
	}
	w.unsynced = false
	return nil
}

// How long secure waits between its attempts.
const (
	firstResync = 100 * time.Millisecond
	lastResync  = 5 * time.Second
)

// resync writes the log again as it is and syncs it. After a sync that has failed
// the kernel may take for written what is not: another one alone would know
// nothing of it.
func (w *writer) resync() error {
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := w.wal.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return w.wal.Sync()
		}
		if _, err := w.wal.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
}

// settle runs a group in one transaction, or one by one if that fails: which of
// them is at fault is not known. Where no transaction can be had, none is tried
// for each.
func (w *writer) settle(group []*op) {
	err := w.transact(group)
	switch {
	case err == nil:
	case len(group) > 1 && !errors.Is(err, errNotBegun):
		for i := range group {
			w.settle(group[i : i+1])
		}
	case errors.Is(err, errBroken): // the group is that operation alone
		group[0].err = err
	default:
		for _, o := range group {
			o.err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
		}
	}
}

// errBroken occurs when an operation fails for a reason of its own, such as a
// record that cannot be read: to try it again is of no use.
var errBroken = errors.New("broken")

// errNotBegun occurs when the database gives no transaction.
var errNotBegun = errors.New("no transaction to be had")

// transact returns an error when nothing of the group was kept.
func (w *writer) transact(group []*op) (err error) {
	t := &tx{w: w, vms: w.spare.vms()}
	defer w.spare.keep(t.vms)
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("%w: %w", errNotBegun, err)
	}
	t.wrote = false
	defer func() {
		if err != nil {
			// The database may have rolled back by itself; then this fails.
			_ = t.exec("ROLLBACK")
		}
	}()
	for _, o := range group {
		if o.err = w.attempt(t, o); o.err != nil && !isDomain(o.err) {
			return o.err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	w.unsynced = w.unsynced || t.wrote
	if err := t.exec("COMMIT"); err != nil {
		return err
	}
	w.cache.put(t.vms)
	if t.purged {
		w.cache.forget()
	}
	w.early.tell(t.changes)
	w.untold = append(w.untold, t.changes...)
	return nil
}

func (w *writer) attempt(t *tx, o *op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("store operation panicked", keyPanic, p, keyStack, string(debug.Stack()))
			err = fmt.Errorf("%w: panic: %v", errBroken, p)
		}
	}()
	return o.run(t)
}

// isDomain reports whether err is an answer, not a fault of the database.
func isDomain(err error) bool {
	for _, known := range []error{
		fleet.ErrNotFound, fleet.ErrIDTaken, fleet.ErrEnded, fleet.ErrNotDelivered,
		fleet.ErrNotDue, fleet.ErrNothingDue, fleet.ErrSuperseded,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
