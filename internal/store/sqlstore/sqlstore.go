// Package sqlstore keeps the store in an SQL database: today an SQLite file.
//
// All writes go through one goroutine that puts what arrives concurrently into
// one transaction and answers everybody after its commit, so that the price of
// a durable commit is shared. Reads go around it.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many reads may run at once.
const readers = 4

// DB is a store in an SQL database. It is safe for concurrent use.
type DB struct {
	id     string
	read   *sql.DB
	write  *sql.DB
	writer *writer
	wal    *os.File // the write-ahead log
	log    *slog.Logger

	readMu    sync.Mutex
	readStmts map[string]*sql.Stmt // by their text

	// rowsChecked is when writeQuiet last looked, in Unix nanoseconds.
	rowsChecked atomic.Int64

	early, durable listeners
}

var _ store.Store = (*DB)(nil)

// OpenSQLite opens the database file at path, makes it if it is not there, and
// brings its schema up to date. The caller keeps other processes away from it.
func OpenSQLite(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the database directory: %w", err)
	}
	db := &DB{log: log, readStmts: map[string]*sql.Stmt{}}
	if err := db.open(ctx, path); err != nil {
		return nil, errors.Join(err, db.release())
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, path string) error {
	var err error
	if db.write, err = openPool(path, 1, writing); err != nil {
		return err
	}
	if err := migrate(ctx, db.write); err != nil {
		return fmt.Errorf("migrate the database %s: %w", path, err)
	}
	if db.read, err = openPool(path, readers, "_pragma=query_only(1)"); err != nil {
		return err
	}
	row := db.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'store_id'`)
	if err := row.Scan(&db.id); err != nil {
		return fmt.Errorf("read the database %s: %w", path, err)
	}
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open the database %s: %w", path, err)
	}
	var file string // as SQLite knows it, past symbolic links
	row = conn.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`)
	if err := row.Scan(&file); err != nil {
		return fmt.Errorf("read the database %s: %w", path, err)
	}
	if db.wal, err = os.OpenFile(file+"-wal", os.O_RDWR, 0); err != nil {
		return fmt.Errorf("open the log of the database %s: %w", path, err)
	}
	last, err := db.number(ctx, lastChange)
	if err != nil {
		return fmt.Errorf("read the database %s: %w", path, err)
	}
	db.writer = startWriter(conn, db.wal, last, &db.early, &db.durable, db.log)
	return nil
}

// writing are the settings of the connection that writes. A longer log before a
// checkpoint, 16 MB, has pages that are changed often written less often to the
// file, and its index pages stay in memory, 16 MB of them. The writer syncs its
// commits itself: SQLite would let nobody see them before.
const writing = "_txlock=immediate&_pragma=wal_autocheckpoint(4000)&_pragma=cache_size(-16000)"

func openPool(path string, conns int, setting string) (*sql.DB, error) {
	// A path may hold any character; in a file: URI it must be escaped.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + setting +
		"&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)" +
		"&_pragma=busy_timeout(5000)&_pragma=temp_store(MEMORY)"
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool, nil
}

func migrate(ctx context.Context, pool *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, pool, dir)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// ID names this database.
func (db *DB) ID() string { return db.id }

// Check writes to the database.
func (db *DB) Check(ctx context.Context) error {
	return db.update(ctx, func(t *tx) error {
		return t.exec(`UPDATE meta SET value = value + 1 WHERE key = 'checks'`)
	})
}

// Close commits what is under way and closes the database.
func (db *DB) Close() error {
	db.writer.stop()
	return db.release()
}

func (db *DB) release() error {
	errs := []error{db.closeReadStmts()}
	if db.wal != nil { // before SQLite removes the file
		errs = append(errs, db.wal.Close())
	}
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// Listen calls fn with the changes of each commit once they are durable, those of
// a lease for a stream at once.
func (db *DB) Listen(fn func([]fleet.Change)) (stop func()) { return db.durable.add(fn) }

// ListenEarly calls fn with the changes of each commit while they are being synced.
func (db *DB) ListenEarly(fn func([]fleet.Change)) (stop func()) { return db.early.add(fn) }

// listeners are told of changes. The zero value is ready.
type listeners struct {
	mu     sync.Mutex
	fns    map[int]func([]fleet.Change)
	nextID int
}

func (l *listeners) add(fn func([]fleet.Change)) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = map[int]func([]fleet.Change){}
	}
	id := l.nextID
	l.nextID++
	l.fns[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, id)
	}
}

func (l *listeners) tell(changes []fleet.Change) {
	if len(changes) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		fn(changes)
	}
}
