package target

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/url"

	"github.com/klauspost/compress/zstd"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

// store counts in the controller's database: rows in it are durable. The bench's knowledge
// of its tables is here and in fill.go.
type store struct{ db *sql.DB }

func openStore(ctx context.Context, path string) (counter, error) {
	db, err := openDB(path, "mode=ro")
	if err != nil {
		return nil, err
	}
	s := &store{db}
	if _, err := s.Tally(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

func openDB(path, settings string) (*sql.DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + settings + "&_pragma=busy_timeout(10000)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open the controller's database: %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func (s *store) Tally(ctx context.Context) (t peer.Tally, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM vms WHERE connected = 1),
		(SELECT count(*) FROM commands WHERE finished_at > 0)
			- (SELECT count(*) FROM commands WHERE state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED')),
		(SELECT count(*) FROM events)`).Scan(&t.Sessions, &t.Acks, &t.Events)
	if err != nil {
		return t, fmt.Errorf("count in the controller's database: %w", err)
	}
	return t, nil
}

// Mark returns the number of the latest row of heartbeats.
func (s *store) Mark(ctx context.Context) (m Mark, err error) {
	row := s.db.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM heartbeats`)
	if err := row.Scan(&m); err != nil {
		return 0, fmt.Errorf("count in the controller's database: %w", err)
	}
	return m, nil
}

// Between counts the heartbeats in the rows: each is a line in a Zstandard frame.
func (s *store) Between(ctx context.Context, from, to Mark) (n int64, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT docs FROM heartbeats WHERE seq > ? AND seq <= ?`, int64(from), int64(to))
	if err != nil {
		return 0, fmt.Errorf("count in the controller's database: %w", err)
	}
	defer rows.Close()
	frames, err := zstd.NewReader(nil)
	if err != nil {
		return 0, err
	}
	defer frames.Close()
	for rows.Next() {
		var docs sql.RawBytes
		if err := rows.Scan(&docs); err != nil {
			return 0, fmt.Errorf("count in the controller's database: %w", err)
		}
		text, err := frames.DecodeAll(docs, nil)
		if err != nil {
			return 0, fmt.Errorf("unpack heartbeats: %w", err)
		}
		n += int64(bytes.Count(text, []byte("\n")))
	}
	return n, rows.Err()
}

// CaughtUp reports whether all events have their files.
func (s *store) CaughtUp(ctx context.Context) (yes bool, err error) {
	row := s.db.QueryRowContext(ctx, `SELECT (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'journaled_event') >=
		(SELECT coalesce(max(seq), 0) FROM events)`)
	if err := row.Scan(&yes); err != nil {
		return false, fmt.Errorf("read the controller's database: %w", err)
	}
	return yes, nil
}

func (s *store) Close() error { return s.db.Close() }
