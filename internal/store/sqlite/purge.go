package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Purge removes expired rows, each class in a transaction of its own, so that commits do
// not wait for all of them. With an error it returns how many rows were removed before it.
func (db *DB) Purge(ctx context.Context, c store.Cutoffs, limit int) (total int, err error) {
	if limit <= 0 {
		return 0, nil
	}
	for _, class := range classes(c, limit) {
		if class.before.IsZero() {
			continue
		}
		err := db.write(ctx, func(ctx context.Context, conn *conn) (int64, error) {
			n, err := class.run(ctx, conn)
			if err != nil {
				return 0, fmt.Errorf("purge %s: %w", class.name, err)
			}
			total += int(n)
			return 0, nil
		})
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// class is a class of rows that are purged.
type class struct {
	name   string
	before time.Time // zero when all are kept
	purge  func(context.Context, *conn) (int64, error)
	// secret is whether the rows may contain secrets.
	secret bool
}

// run removes the expired rows. Those without secrets are not overwritten: that would write
// each page of them once more.
func (k class) run(ctx context.Context, c *conn) (n int64, err error) {
	if k.secret {
		return k.purge(ctx, c)
	}
	if _, err := c.sql.ExecContext(ctx, "PRAGMA secure_delete(0)"); err != nil {
		return 0, err
	}
	n, err = k.purge(ctx, c)
	if _, again := c.sql.ExecContext(ctx, "PRAGMA secure_delete(1)"); err == nil {
		err = again
	}
	return n, err
}

func classes(c store.Cutoffs, limit int) []class {
	return []class{
		{"changes", c.Changes, func(ctx context.Context, conn *conn) (int64, error) {
			return conn.purgeChanges(ctx, c, limit)
		}, false},
		{"events", c.Events, rows(purgeEvents, c.Events.UnixNano(), c.EventsThrough, limit), false},
		{"heartbeats", c.Heartbeats, func(ctx context.Context, conn *conn) (int64, error) {
			return conn.purgeHeartbeats(ctx, c, limit)
		}, false},
		{"commands", c.Commands, rows(purgeCommands, c.Commands.UnixNano(), limit), true},
		{"vms", c.VMs, rows(purgeVMs, c.VMs.UnixNano(), limit), true},
		{"audit", c.Audit, rows(purgeAudit, c.Audit.UnixNano(), limit), false},
	}
}

const (
	purgeEvents = `DELETE FROM events WHERE seq IN (SELECT seq FROM events
		WHERE received_at < ? AND seq <= ? ORDER BY received_at LIMIT ?)`
	purgeCommands = `DELETE FROM commands WHERE seq IN (SELECT seq FROM commands
		WHERE finished_at < ? ORDER BY finished_at LIMIT ?)`
	purgeVMs = `DELETE FROM vms WHERE vm_id IN (SELECT vm_id FROM vms
		WHERE connected = 0 AND last_seen_at > 0 AND last_seen_at < ? ORDER BY last_seen_at LIMIT ?)`
	purgeAudit = `DELETE FROM audit WHERE seq IN (SELECT seq FROM audit
		WHERE at < ? ORDER BY at LIMIT ?)`

	// The end is before the first row to be kept, or else the last row examined.
	endOfChanges = `SELECT COALESCE(MIN(seq) FILTER (WHERE at BETWEEN ? AND ?) - 1, MAX(seq), 0)
		FROM (SELECT seq, at FROM changes WHERE seq < (SELECT MAX(seq) FROM changes) ORDER BY seq LIMIT ?)`
	endOfHeartbeats = `SELECT COALESCE(MIN(seq) FILTER (WHERE at BETWEEN ? AND ?) - 1, MAX(seq), 0)
		FROM (SELECT seq, at FROM heartbeats ORDER BY seq LIMIT ?)`
)

func rows(statement string, args ...any) func(context.Context, *conn) (int64, error) {
	return func(ctx context.Context, conn *conn) (int64, error) {
		return conn.affect(ctx, statement, args...)
	}
}

// tooLate is the time after which only a wrong clock dates rows. Rows that are removed in
// order of their commits must not wait for such a row.
func tooLate(now time.Time) int64 { return now.Add(24 * time.Hour).UnixNano() }

func (c *conn) purgeHeartbeats(ctx context.Context, cut store.Cutoffs, limit int) (int64, error) {
	through, err := c.number(ctx, endOfHeartbeats, cut.Heartbeats.UnixNano(), tooLate(cut.Now), limit)
	if err != nil {
		return 0, err
	}
	return c.affect(ctx, `DELETE FROM heartbeats WHERE seq <= ?`, through)
}

// purgeChanges stores how far it got, so that Changes can return ErrPurged.
func (c *conn) purgeChanges(ctx context.Context, cut store.Cutoffs, limit int) (int64, error) {
	through, err := c.number(ctx, endOfChanges, cut.Changes.UnixNano(), tooLate(cut.Now), limit)
	if err != nil {
		return 0, err
	}
	n, err := c.affect(ctx, `DELETE FROM changes WHERE seq <= ?`, through)
	if err != nil || n == 0 {
		return 0, err
	}
	return n, c.purgedThrough(ctx, through)
}
