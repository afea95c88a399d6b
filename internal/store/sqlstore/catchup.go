package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// lookBack is how far back there may be heartbeats that the row of a connected VM
// lacks: writeQuiet lets it be three times rowEvery, and may be late.
const lookBack = 3*rowEvery + time.Minute

// lastPart is a VM's last part of a row of heartbeats.
type lastPart struct {
	part
	seq int64 // of the row
}

// lastParts returns the last heartbeats of VMs whose rows may be behind them:
// those that sent one shortly before the last of all.
func (db *DB) lastParts(ctx context.Context) (map[fleet.VMID]lastPart, error) {
	last := map[fleet.VMID]lastPart{}
	var since int64
	_, err := query(ctx, db, func(r *sql.Rows) (struct{}, error) {
		var seq, receivedAt int64
		var row []byte
		if err := r.Scan(&seq, &receivedAt, &row); err != nil {
			return struct{}{}, err
		}
		if since == 0 {
			since = receivedAt - int64(lookBack)
		}
		if receivedAt < since {
			return struct{}{}, errEnough
		}
		return struct{}{}, parts(row, func(p part) bool {
			if _, ok := last[p.vm]; !ok {
				p.lines = bytes.Clone(p.lines) // the others' need not stay
				last[p.vm] = lastPart{p, seq}
			}
			return true
		})
	}, `SELECT seq, received_at, docs FROM heartbeats ORDER BY seq DESC`)
	return last, err
}

const lastAcked = `SELECT vm_id, finished_at FROM commands
	WHERE finished_at > (SELECT MAX(finished_at) FROM commands WHERE finished_at IS NOT NULL) - ?
	AND state IN ('SUCCEEDED', 'FAILED') ORDER BY finished_at`

// lastAcks returns when VMs last ended a command, of those that did shortly before
// the last command of all ended.
func (db *DB) lastAcks(ctx context.Context) (map[fleet.VMID]time.Time, error) {
	last := map[fleet.VMID]time.Time{}
	_, err := query(ctx, db, func(r *sql.Rows) (struct{}, error) {
		var vm string
		var at int64
		err := r.Scan(&vm, &at)
		last[fleet.VMID(vm)] = time.Unix(0, at).UTC()
		return struct{}{}, err
	}, lastAcked, int64(lookBack))
	return last, err
}

// caughtUp returns a VM with what a crash has kept from its row: the load in its
// last heartbeats, and that it has acked a command since.
func (t *tx) caughtUp(id fleet.VMID, last lastPart, acked time.Time) (fleet.VM, error) {
	v, err := t.vm(id)
	if err != nil {
		return v, err
	}
	if e := t.vms[id]; last.seq > e.row.lastBeat {
		e.row.lastBeat = last.seq
		said, err := last.heartbeats()
		if err != nil {
			return v, err
		}
		for _, h := range said {
			v = v.WithLoad(v.Heartbeat(h, false))
		}
	}
	if acked.After(v.LastSeenAt) {
		v.LastSeenAt = acked
	}
	if acked.After(v.LastAckAt) {
		v.LastAckAt = acked
	}
	return v, nil
}

// quietBatch is how many VMs one transaction of writeQuiet writes: when a whole
// fleet falls silent, others must not wait for all of it.
const quietBatch = 500

// endOfTime is later than any row was written.
var endOfTime = time.Unix(1<<40, 0)

// writeQuiet writes the rows of VMs that have said nothing for so long that
// lastParts would soon not find what their rows lack. It looks once in rowEvery.
func (db *DB) writeQuiet(ctx context.Context, now time.Time) error {
	last := db.rowsChecked.Load()
	if now.Sub(time.Unix(0, last)) < rowEvery || !db.rowsChecked.CompareAndSwap(last, now.UnixNano()) {
		return nil
	}
	for some := range slices.Chunk(db.writer.cache.behind(now.Add(-2*rowEvery)), quietBatch) {
		if err := db.update(ctx, func(t *tx) error { return t.writeRows(some) }); err != nil {
			return err
		}
	}
	return nil
}

// writeRows writes the rows of VMs as they are in this transaction.
func (t *tx) writeRows(vms []fleet.VMID) error {
	for _, id := range vms {
		v, err := t.vm(id)
		if errors.Is(err, fleet.ErrNotFound) {
			continue // purged meanwhile
		}
		if err != nil {
			return err
		}
		t.putVM(v, v.LastSeenAt)
	}
	return nil
}
