package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// readers is how many lists may be read concurrently. Reads that commits wait for have a
// connection of their own.
const readers = 4

// connections are all connections to a database file.
type connections struct {
	pools   []*sql.DB    // in the order in which they are closed
	release func() error // releases the lock of the database
	writer  chan *conn
	readers chan *conn
	loader  chan *conn
	reading []*conn // those of readers and loader
	users   sync.WaitGroup
}

// openDatabase opens a database file and migrates it to the newest schema.
func openDatabase(ctx context.Context, path string, sys system, log *slog.Logger) (cs *connections, err error) {
	cs = &connections{writer: make(chan *conn, 1), readers: make(chan *conn, readers), loader: make(chan *conn, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, cs.close())
		}
	}()
	if cs.release, err = sys.claim(sys, path, log); err != nil {
		return cs, err
	}
	writing, err := openPool(path, sys.vfs, 1, writing+fmt.Sprintf("&_pragma=journal_size_limit(%d)", logLimit))
	if err != nil {
		return cs, err
	}
	cs.pools = append(cs.pools, writing)
	if err := migrate(ctx, writing, log); err != nil {
		return cs, fmt.Errorf("migrate: %w", err)
	}
	if _, err := fill(ctx, cs.writer, writing); err != nil {
		return cs, err
	}
	reading, err := openPool(path, sys.vfs, readers+1, "&_pragma=query_only(1)")
	if err != nil {
		return cs, err
	}
	cs.pools = append([]*sql.DB{reading}, cs.pools...)
	for _, to := range []chan *conn{cs.loader, cs.readers} {
		opened, err := fill(ctx, to, reading)
		if err != nil {
			return cs, err
		}
		cs.reading = append(cs.reading, opened...)
	}
	return cs, nil
}

// writing are the settings of the write connection. What is replaced or removed is overwritten,
// because commands contain secrets until they end. With a log of up to 16 MB before a
// checkpoint, pages that change often are written to the file less often; a cache of 16 MB
// keeps the index pages in memory.
const writing = "&_txlock=immediate&_pragma=wal_autocheckpoint(4000)&_pragma=cache_size(-16000)" +
	"&_pragma=secure_delete(1)"

// busyTimeout is how many milliseconds a statement waits for the locks of other
// connections.
const busyTimeout = "5000"

func openPool(path, vfs string, conns int, settings string) (*sql.DB, error) {
	// A path may contain any character; in a file: URI it must be escaped.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=rwc" + settings +
		"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=busy_timeout(" + busyTimeout + ")&_pragma=temp_store(MEMORY)"
	if vfs != "" {
		dsn += "&vfs=" + vfs
	}
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool, nil
}

// fill opens as many connections as the channel can hold, and returns them as well.
func fill(ctx context.Context, to chan *conn, pool *sql.DB) (opened []*conn, err error) {
	for range cap(to) {
		c, err := pool.Conn(ctx)
		if err != nil {
			return nil, err
		}
		opened = append(opened, &conn{sql: c, stmts: map[string]*sql.Stmt{}})
		to <- opened[len(opened)-1]
	}
	return opened, nil
}

// close waits until no connection is in use, and closes them all. SQLite then copies the
// log into the database file, and removes the log.
func (cs *connections) close() error {
	cs.users.Wait()
	var errs []error
	for _, conns := range []chan *conn{cs.readers, cs.loader, cs.writer} {
		for len(conns) > 0 {
			errs = append(errs, (<-conns).close())
		}
	}
	for _, pool := range cs.pools {
		errs = append(errs, pool.Close())
	}
	if cs.release != nil {
		errs = append(errs, cs.release())
	}
	return errors.Join(errs...)
}

// take waits for a connection.
func take(ctx context.Context, conns chan *conn) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c := <-conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// conn is a connection with its prepared statements. It is not safe for concurrent use.
type conn struct {
	sql   *sql.Conn
	stmts map[string]*sql.Stmt // by their text
	// began is when the read in progress began, in nanoseconds since the database was opened;
	// zero for none. Others may read it.
	began atomic.Int64
}

// stmt returns a prepared statement. All are kept: their number is that of the combinations
// of filters, which is small.
func (c *conn) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s, ok := c.stmts[q]; ok {
		return s, nil
	}
	s, err := c.sql.PrepareContext(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	c.stmts[q] = s
	return s, nil
}

func (c *conn) exec(ctx context.Context, q string, args ...any) (sql.Result, error) {
	s, err := c.stmt(ctx, q) //nolint:sqlclosecheck // closed with the connection
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// insert runs a statement and returns the number of the new row.
func (c *conn) insert(ctx context.Context, q string, args ...any) (int64, error) {
	res, err := c.exec(ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// affect runs a statement and returns how many rows it has affected.
func (c *conn) affect(ctx context.Context, q string, args ...any) (int64, error) {
	res, err := c.exec(ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// number reads one number, zero when there is no row.
func (c *conn) number(ctx context.Context, q string, args ...any) (n int64, err error) {
	s, err := c.stmt(ctx, q) //nolint:sqlclosecheck // closed with the connection
	if err != nil {
		return 0, err
	}
	if err := s.QueryRowContext(ctx, args...).Scan(&n); !errors.Is(err, sql.ErrNoRows) {
		return n, err
	}
	return 0, nil
}

// transact runs fn in a transaction that the statement begin starts, and commits it unless
// fn fails. It starts and ends the transaction even if ctx has ended.
func (c *conn) transact(ctx context.Context, begin string, fn func() error) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := c.exec(ctx, begin); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		_, err = c.exec(ctx, "COMMIT")
	}
	if err == nil {
		return nil
	}
	// SQLite may have rolled back already; then this fails.
	_, _ = c.exec(ctx, "ROLLBACK")
	return err
}

// close closes the statements before their connection: SQLite keeps a connection with open
// statements, and then does not copy its log into the database file at the end.
func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.sql.Close())...)
}
