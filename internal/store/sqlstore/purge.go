package sqlstore

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// purgeBatch is how many rows of a class one transaction forgets, so that a
// purge never keeps the writer long; purgeBlocks is that for heartbeats, whose
// rows are large.
const (
	purgeBatch  = 1000
	purgeBlocks = 50
)

// Purge forgets what is older than the retention.
func (db *DB) Purge(ctx context.Context, r store.Retention, now time.Time) (int, error) {
	total := 0
	// Rows that are removed in the order in which they were written must not wait
	// for one that was dated by a wrong clock.
	fromTheFuture := now.Add(24 * time.Hour).UnixNano()
	for _, class := range []struct {
		keep  time.Duration
		batch int64
		purge func(t *tx, cutoff, batch int64) (int64, error)
	}{
		{r.Changes, purgeBatch, purgeChanges(fromTheFuture)},
		{r.Events, purgeBatch, purgeRows(`DELETE FROM events WHERE seq IN (SELECT seq FROM events
			WHERE received_at < ? AND seq <= (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'journaled_event')
			ORDER BY received_at LIMIT ?)`)},
		{r.Heartbeats, purgeBlocks, purgeHeartbeats(fromTheFuture)},
		{r.Commands, purgeBatch, purgeRows(`DELETE FROM commands WHERE seq IN
			(SELECT seq FROM commands WHERE finished_at < ? ORDER BY finished_at LIMIT ?)`)},
		{r.VMs, purgeBatch, purgeVMs},
	} {
		if class.keep == 0 {
			continue
		}
		n, err := db.purgeClass(ctx, class.purge, class.batch, now.Add(-class.keep).UnixNano())
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (db *DB) purgeClass(
	ctx context.Context, purge func(*tx, int64, int64) (int64, error), batch, cutoff int64,
) (total int, err error) {
	for {
		var n int64
		err := db.update(ctx, func(t *tx) (err error) {
			n, err = purge(t, cutoff, batch)
			return err
		})
		total += int(n)
		if err != nil || n < batch {
			return total, err
		}
	}
}

func purgeRows(query string) func(*tx, int64, int64) (int64, error) {
	return func(t *tx, cutoff, batch int64) (int64, error) {
		return t.remove(query, cutoff, batch)
	}
}

func purgeVMs(t *tx, cutoff, batch int64) (int64, error) {
	t.purged = true
	return t.remove(`DELETE FROM vms WHERE vm_id IN
		(SELECT vm_id FROM vms WHERE connected = 0 AND last_seen_at < ? LIMIT ?)`, cutoff, batch)
}

func purgeHeartbeats(fromTheFuture int64) func(*tx, int64, int64) (int64, error) {
	return func(t *tx, cutoff, batch int64) (int64, error) {
		return t.remove(`DELETE FROM heartbeats WHERE (received_at < ? OR received_at > ?) AND seq IN
			(SELECT seq FROM heartbeats ORDER BY seq LIMIT ?)`, cutoff, fromTheFuture, batch)
	}
}

// purgeChanges forgets changes, up to the first that is to be kept, and remembers
// how far, so that a cursor from before can be told apart. The latest change stays.
func purgeChanges(fromTheFuture int64) func(*tx, int64, int64) (int64, error) {
	return func(t *tx, cutoff, batch int64) (int64, error) {
		var through int64
		err := t.scan(`SELECT COALESCE(MIN(seq) FILTER (WHERE at BETWEEN ? AND ?) - 1, MAX(seq), 0)
			FROM (SELECT seq, at FROM changes
				WHERE seq < (SELECT MAX(seq) FROM changes) ORDER BY seq LIMIT ?)`,
			[]any{cutoff, fromTheFuture, batch}, []any{&through})
		if err != nil {
			return 0, err
		}
		n, err := t.remove(`DELETE FROM changes WHERE seq <= ?`, through)
		if err != nil || n == 0 {
			return 0, err
		}
		return n, t.exec(`UPDATE meta SET value = ? WHERE key = 'purged_change'`, through)
	}
}
