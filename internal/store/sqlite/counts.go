package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Both queries read indexes only.
const (
	countVMs = "SELECT pool_id, status, connected, COUNT(*) FROM vms INDEXED BY vms_by_pool" +
		" GROUP BY pool_id, status, connected"
	countQueues = "SELECT queue, EXISTS (SELECT 1 FROM vms INDEXED BY vms_connected" +
		" WHERE vms.vm_id = waiting.vm_id AND connected = 1) AS connected, SUM(n), MIN(first) FROM" +
		" (SELECT vm_id, queue, COUNT(*) AS n, MIN(seq) AS first FROM commands INDEXED BY commands_queue" +
		" WHERE queue IS NOT NULL GROUP BY vm_id, queue) AS waiting GROUP BY queue, connected"
)

// Counts counts VMs and open commands. Those with damaged columns are left out.
func (db *DB) Counts(ctx context.Context) (all store.Counts, err error) {
	err = db.read(ctx, func(c *conn) error {
		all = store.Counts{}
		err := each(ctx, c, countVMs, nil, func(rows *sql.Rows) (bool, error) {
			var n store.VMCount
			err := rows.Scan((*text)(&n.Pool), (*text)(&n.Status), (*flag)(&n.Connected), &n.N)
			if err == nil {
				all.VMs = append(all.VMs, n)
			}
			return true, readable(err)
		})
		if err != nil {
			return err
		}
		return each(ctx, c, countQueues, nil, func(rows *sql.Rows) (bool, error) {
			var n store.QueueCount
			err := rows.Scan((*text)(&n.Queue), (*flag)(&n.Connected), &n.N, (*number)(&n.First))
			if err == nil {
				all.Queues = append(all.Queues, n)
			}
			return true, readable(err)
		})
	})
	if err != nil {
		return store.Counts{}, err
	}
	return all, nil
}

// readable returns nil for the error of a damaged column, and other errors unchanged.
func readable(err error) error {
	if errors.Is(err, errColumn) {
		return nil
	}
	return err
}
