package sqlstore

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// purgeBatch is how many rows of a class one transaction forgets, so that a
// purge never keeps the writer long.
const purgeBatch = 1000

// Purge forgets what is older than the retention.
func (db *DB) Purge(ctx context.Context, r store.Retention, now time.Time) (int, error) {
	total := 0
	for _, class := range []struct {
		keep  time.Duration
		purge func(t *tx, cutoff int64) (int64, error)
	}{
		{r.Changes, purgeChanges},
		{r.Events, purgeRows(`DELETE FROM events WHERE seq IN (SELECT seq FROM events
			WHERE received_at < ? AND seq <= (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'journaled_event')
			ORDER BY received_at LIMIT ?)`)},
		{r.Heartbeats, purgeRows(`DELETE FROM heartbeats WHERE received_at < ? AND seq IN
			(SELECT seq FROM heartbeats ORDER BY seq LIMIT ?)`)},
		{r.Commands, purgeRows(`DELETE FROM commands WHERE seq IN
			(SELECT seq FROM commands WHERE finished_at < ? ORDER BY finished_at LIMIT ?)`)},
		{r.VMs, purgeVMs},
	} {
		if class.keep == 0 {
			continue
		}
		n, err := db.purgeClass(ctx, class.purge, now.Add(-class.keep).UnixNano())
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (db *DB) purgeClass(
	ctx context.Context, purge func(*tx, int64) (int64, error), cutoff int64,
) (total int, err error) {
	for {
		var n int64
		err := db.update(ctx, func(t *tx) (err error) {
			n, err = purge(t, cutoff)
			return err
		})
		total += int(n)
		if err != nil || n < purgeBatch {
			return total, err
		}
	}
}

func purgeRows(query string) func(*tx, int64) (int64, error) {
	return func(t *tx, cutoff int64) (int64, error) {
		return t.remove(query, cutoff, purgeBatch)
	}
}

func purgeVMs(t *tx, cutoff int64) (int64, error) {
	t.purged = true
	return t.remove(`DELETE FROM vms WHERE vm_id IN
		(SELECT vm_id FROM vms WHERE connected = 0 AND last_seen_at < ? LIMIT ?)`, cutoff, purgeBatch)
}

// purgeChanges forgets changes and remembers how far, so that a cursor from
// before can be told apart. The latest change stays.
func purgeChanges(t *tx, cutoff int64) (int64, error) {
	var through int64
	err := t.scan(`SELECT COALESCE(MAX(seq), 0) FROM (SELECT seq, at FROM changes
		WHERE seq < (SELECT MAX(seq) FROM changes) ORDER BY seq LIMIT ?) WHERE at < ?`,
		[]any{purgeBatch, cutoff}, []any{&through})
	if err != nil || through == 0 {
		return 0, err
	}
	if err := t.exec(`UPDATE meta SET value = ? WHERE key = 'purged_change'`, through); err != nil {
		return 0, err
	}
	return t.remove(`DELETE FROM changes WHERE seq <= ?`, through)
}
