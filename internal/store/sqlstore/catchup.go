package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// beatRow is a row of heartbeats.
type beatRow struct {
	seq        int64
	vm         fleet.VMID
	receivedAt int64
	docs       []byte
}

// lastBeats returns the last heartbeats of VMs whose rows may be behind them:
// those that sent one shortly before the last of all.
func (db *DB) lastBeats(ctx context.Context) (map[fleet.VMID]beatRow, error) {
	last := map[fleet.VMID]beatRow{}
	var since int64
	_, err := query(ctx, db, func(r *sql.Rows) (struct{}, error) {
		var b beatRow
		var docs sql.RawBytes
		if err := r.Scan(&b.seq, &b.vm, &b.receivedAt, &docs); err != nil {
			return struct{}{}, err
		}
		if since == 0 {
			since = b.receivedAt - int64(rowEvery+time.Minute)
		}
		if b.receivedAt < since {
			return struct{}{}, errEnough
		}
		if _, ok := last[b.vm]; !ok {
			b.docs = append([]byte(nil), docs...)
			last[b.vm] = b
		}
		return struct{}{}, nil
	}, `SELECT seq, vm_id, received_at, docs FROM heartbeats ORDER BY seq DESC`)
	return last, err
}

// caughtUp returns a VM with what a crash has kept from its row: the load in its
// last heartbeats.
func (t *tx) caughtUp(id fleet.VMID, last beatRow) (fleet.VM, error) {
	v, err := t.vm(id)
	if err != nil {
		return v, err
	}
	e := t.vms[id]
	if last.seq <= e.row.lastBeat {
		return v, nil
	}
	e.row.lastBeat = last.seq
	block, err := decodeHeartbeats(last.docs)
	if err != nil {
		return v, err
	}
	for _, h := range block {
		if !v.Stale(h.Origin) {
			v = v.WithLoad(v.Heartbeat(h, false))
		}
	}
	return v, nil
}
