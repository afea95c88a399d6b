// Package sqlite owns the driver of package store for SQLite files.
//
// One connection writes, and each commit is synced before it returns. Reads have
// connections of their own and see what was committed before they began.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The log attributes.
const (
	keyRenamed = "renamed_to"
	keySeq     = "seq"
	keySince   = "since_checkpoint"
)

// DB is a database in an SQLite file. It is safe for concurrent use.
type DB struct {
	path      string
	opened    time.Time
	id        string
	log       *slog.Logger
	conns     *connections
	files     openFiles
	listeners listeners
	failing   atomic.Bool // the latest write failed
	limiter   loglimit.Limiter

	checkpoints checkpoints // used by the holder of the write connection

	mu     sync.Mutex
	closed bool
}

var _ store.Driver = (*DB)(nil)

// Open opens the database file at path, creates it and its directory if they do not exist,
// and brings its schema up to date. The database is locked until Close: Open returns
// ErrInUse when it is already open, under any path. It logs files next to the database that
// do not belong to it. It returns ErrLaterSchema when a later version of the program has
// migrated the database. metrics registers the metrics; nil registers none.
func Open(ctx context.Context, path string, log *slog.Logger, metrics prometheus.Registerer) (*DB, error) {
	db, err := open(ctx, path, operatingSystem, log)
	if err == nil {
		db.register(metrics)
	}
	return db, err
}

func open(ctx context.Context, path string, sys system, log *slog.Logger) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create the database directory: %w", err)
	}
	conns, err := openDatabase(ctx, path, sys, log)
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	db := &DB{path: path, opened: time.Now(), log: log, conns: conns, checkpoints: newCheckpoints()}
	if err := db.readID(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read the database %s: %w", path, err), conns.close())
	}
	if db.files, err = filesOf(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database %s: %w", path, err), conns.close())
	}
	return db, nil
}

// readID reads the id of the database.
func (db *DB) readID(ctx context.Context) error {
	return db.read(ctx, func(c *conn) error {
		return c.sql.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'store_id'`).Scan(&db.id)
	})
}

// ID identifies the database.
func (db *DB) ID() string { return db.id }

// Check writes to the database.
func (db *DB) Check(ctx context.Context) error {
	return db.write(ctx, func(ctx context.Context, c *conn) (int64, error) {
		_, err := c.exec(ctx, `UPDATE meta SET value = value + 1 WHERE key = 'checks'`)
		return 0, err
	})
}

// Listen calls fn with the number of the last change after each commit with changes. fn
// must not call stop.
func (db *DB) Listen(fn func(last int64)) (stop func()) { return db.listeners.add(fn) }

// Close waits for calls in progress and closes the database, which then is a single file.
// Closing twice is not an error.
func (db *DB) Close() error {
	db.mu.Lock()
	closed := db.closed
	db.closed = true
	db.mu.Unlock()
	if closed {
		return nil
	}
	return db.conns.close()
}

// use keeps the connections open until done is called. It returns store.ErrClosed after
// Close.
func (db *DB) use() (done func(), err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, store.ErrClosed
	}
	db.conns.users.Add(1)
	return db.conns.users.Done, nil
}

// read calls fn with a connection for lists.
func (db *DB) read(ctx context.Context, fn func(c *conn) error) error {
	return db.readOn(ctx, db.conns.readers, fn)
}

// load calls fn with the connection for reads that must not wait for lists.
func (db *DB) load(ctx context.Context, fn func(c *conn) error) error {
	return db.readOn(ctx, db.conns.loader, fn)
}

func (db *DB) readOn(ctx context.Context, conns chan *conn, fn func(c *conn) error) error {
	done, err := db.use()
	if err != nil {
		return err
	}
	defer done()
	c, err := take(ctx, conns)
	if err != nil {
		return err
	}
	c.began.Store(int64(max(1, time.Since(db.opened))))
	defer func() {
		c.began.Store(0)
		conns <- c
	}()
	if err := db.files.check(); err != nil {
		return fmt.Errorf("read the database: %w", err)
	}
	switch err := fn(c); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("read the database: %w", err)
	}
}

// write runs fn in a transaction, commits it unless fn fails, and notifies the listeners of
// the change whose number fn returns, if any. Once started it succeeds or fails as a whole:
// fn gets a context that does not end with ctx.
//
// After a failed sync the connection remains in use: the frames of that commit are in the
// log, but not in its index, and the next commit overwrites them. Closing and reopening the
// database would bring them back, although they may not be on the disk. A process that is
// started later rewrites the log, see rewriteLog.
func (db *DB) write(ctx context.Context, fn func(context.Context, *conn) (change int64, err error)) error {
	done, err := db.use()
	if err != nil {
		return err
	}
	defer done()
	c, err := take(ctx, db.conns.writer)
	if err != nil {
		return err
	}
	defer func() { db.conns.writer <- c }()
	ctx = context.WithoutCancel(ctx) // for fn; transact does the same for itself
	var last int64
	if err = db.files.check(); err == nil {
		err = c.transact(ctx, "BEGIN IMMEDIATE", func() (err error) {
			last, err = fn(ctx, c)
			return err
		})
	}
	if err == nil {
		err = db.files.check() // commits to a removed file are lost
	}
	if _, conflict := errors.AsType[*store.ConflictError](err); conflict {
		return err
	}
	if err != nil {
		err = fmt.Errorf("write to the database: %w", explained(err))
		if !db.failing.Swap(true) {
			db.limiter.Limited(db.log, "failing", "", time.Now()).
				Error("database cannot be written, trying again with each call", logkey.Path, db.path, logkey.Error, err)
		}
		return err
	}
	if db.failing.Swap(false) {
		db.limiter.Limited(db.log, "written", "", time.Now()).Info("database can be written again", logkey.Path, db.path)
	}
	if last > 0 {
		db.listeners.notify(last) // before the next commit
	}
	db.checkpoints.run(ctx, c, db.path, db.log)
	return nil
}

// explained adds what SQLite's error text does not say.
func explained(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == lib.SQLITE_IOERR_FSYNC {
		return fmt.Errorf("fsync failed: %w", err)
	}
	return err
}
