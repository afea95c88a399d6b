package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Load returns the rows that k names.
func (db *DB) Load(ctx context.Context, k store.Keys) (rows store.Rows, err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if err := db.usable(ctx); err != nil {
		return rows, err
	}
	ids := slices.Clone(k.Commands)
	for _, vm := range unique(k.VMs) {
		if row, found := db.vms[vm]; found {
			rows.VMs = append(rows.VMs, own(row))
		}
		for _, name := range k.Queues {
			seqs := slices.Sorted(maps.Keys(db.queues[[2]string{vm, name}]))
			for _, seq := range seqs[:min(k.Depth, len(seqs))] {
				ids = append(ids, db.queues[[2]string{vm, name}][seq])
			}
		}
	}
	for _, id := range unique(ids) {
		if row, found := db.commands[id]; found {
			rows.Commands = append(rows.Commands, own(row))
		}
	}
	rows.Aside = db.asides(k)
	return rows, nil
}

func unique(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// sized is a row with a document.
type sized interface{ Size() int }

// choose lists the matching rows in this order.
func choose[K comparable, R sized](
	ctx context.Context, db *DB, all map[K]R, limit int, order func(a, b R) int, fits func(R) bool,
) (rows []R, more bool, err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if err := db.usable(ctx); err != nil {
		return nil, false, err
	}
	for _, row := range all {
		if fits(row) {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, order)
	rows, more = cut(rows, limit)
	return rows, more, nil
}

// cut returns copies of the first rows, and whether there are more.
func cut[R sized](rows []R, limit int) (list []R, more bool) {
	var bound store.Bound
	for _, row := range rows {
		if !bound.Takes(limit, row.Size()) {
			return list, true
		}
		list = append(list, own(row))
	}
	return list, false
}

// lets reports whether a filter accepts a value.
func lets(filter, value string) bool { return filter == "" || filter == value }

// among reports whether one of the values is one of the pools, or there are no pools.
func among(pools []string, values ...string) bool {
	return len(pools) == 0 || slices.ContainsFunc(values, func(v string) bool { return v != "" && slices.Contains(pools, v) })
}

// VMs lists VMs in order of their ids.
func (db *DB) VMs(ctx context.Context, q store.VMQuery, limit int) ([]store.VMRow, bool, error) {
	order := func(a, b store.VMRow) int { return strings.Compare(a.ID, b.ID) }
	return choose(ctx, db, db.vms, limit, order, func(row store.VMRow) bool {
		return row.ID > q.After && lets(q.Pool, row.Pool) && lets(q.Org, row.Org) && lets(q.Status, row.Status) &&
			among(q.Pools, row.Pool) && (q.Connected == nil || *q.Connected == row.Connected)
	})
}

// Commands lists commands, highest Seq first.
func (db *DB) Commands(ctx context.Context, q store.CommandQuery, limit int) ([]store.CommandRow, bool, error) {
	order := func(a, b store.CommandRow) int { return cmp.Compare(b.Seq, a.Seq) }
	return choose(ctx, db, db.commands, limit, order, func(row store.CommandRow) bool {
		return lets(q.VM, row.VM) && lets(q.Type, row.Type) && (q.Before == 0 || row.Seq < q.Before) &&
			among(q.Pools, db.vms[row.VM].Pool) && (len(q.States) == 0 || slices.Contains(q.States, row.State))
	})
}

// LastFinished lists the last finished command of each VM.
func (db *DB) LastFinished(ctx context.Context, q store.FinishedQuery, limit int) ([]store.CommandRow, bool, error) {
	last := map[string]store.CommandRow{}
	db.mu.RLock()
	for _, row := range db.commands {
		if row.VM > q.After && slices.Contains(q.States, row.State) && !row.FinishedAt.IsZero() && !row.FinishedAt.Before(q.Since) &&
			row.FinishedAt.After(last[row.VM].FinishedAt) {
			last[row.VM] = row
		}
	}
	db.mu.RUnlock()
	order := func(a, b store.CommandRow) int { return strings.Compare(a.VM, b.VM) }
	return choose(ctx, db, last, limit, order, func(store.CommandRow) bool { return true })
}

// Events lists events, highest Seq first, or lowest first with After.
func (db *DB) Events(ctx context.Context, q store.EventQuery, limit int) ([]store.EventRow, bool, error) {
	order := func(a, b store.EventRow) int { return cmp.Compare(b.Seq, a.Seq) }
	if q.After != nil {
		order = func(a, b store.EventRow) int { return cmp.Compare(a.Seq, b.Seq) }
	}
	return choose(ctx, db, db.events, limit, order, func(row store.EventRow) bool {
		return lets(q.VM, row.VM) && lets(q.Type, row.Type) && among(q.Pools, db.vms[row.VM].Pool) && !row.ReceivedAt.Before(q.Since) &&
			(q.Until.IsZero() || row.ReceivedAt.Before(q.Until)) &&
			(q.Before == 0 || row.Seq < q.Before) && (q.After == nil || row.Seq > *q.After)
	})
}

// Heartbeats lists rows of heartbeats, latest first.
func (db *DB) Heartbeats(ctx context.Context, q store.HeartbeatQuery, limit int) ([]store.HeartbeatRow, bool, error) {
	order := func(a, b store.HeartbeatRow) int { return b.At.Compare(a.At) }
	return choose(ctx, db, db.heartbeats, limit, order, func(row store.HeartbeatRow) bool {
		return (q.VM == "" || slices.Contains(row.VMs, q.VM)) && (q.Before.IsZero() || row.At.Before(q.Before))
	})
}

// Due lists what is due, earliest first.
func (db *DB) Due(ctx context.Context, now time.Time, limit int) (store.Rows, bool, error) {
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(now) }
	vms, more, err := choose(ctx, db, db.vms, limit, func(a, b store.VMRow) int { return a.DueAt.Compare(b.DueAt) },
		func(row store.VMRow) bool { return due(row.DueAt) })
	commands, more2, err2 := choose(ctx, db, db.commands, limit, func(a, b store.CommandRow) int { return a.DueAt.Compare(b.DueAt) },
		func(row store.CommandRow) bool { return due(row.DueAt) })
	return store.Rows{VMs: vms, Commands: commands}, more || more2, cmp.Or(err, err2)
}

// Changes lists changes, lowest Seq first.
func (db *DB) Changes(ctx context.Context, q store.ChangeQuery, limit int) (rows []store.ChangeRow, more bool, err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if err := db.usable(ctx); err != nil {
		return nil, false, err
	}
	if q.After < max(db.purgedChange, db.damagedChange) {
		return nil, false, store.ErrPurged
	}
	for seq := q.After + 1; seq <= db.lastChange && len(rows) <= limit; seq++ {
		row := db.changes[seq]
		if !lets(q.VM, row.VM) || !among(q.Pools, row.Pool, row.Left) {
			continue
		}
		rows = append(rows, db.documented(row))
	}
	rows, more = cut(rows, limit)
	return rows, more, nil
}

// Counts counts VMs and open commands.
func (db *DB) Counts(ctx context.Context) (all store.Counts, err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if err := db.usable(ctx); err != nil {
		return all, err
	}
	vms, queues := map[store.VMCount]int64{}, map[store.QueueCount]store.QueueCount{}
	for _, row := range db.vms {
		vms[store.VMCount{Pool: row.Pool, Status: row.Status, Connected: row.Connected}]++
	}
	for _, row := range db.commands {
		if row.Queue == "" {
			continue
		}
		key := store.QueueCount{Queue: row.Queue, Connected: db.vms[row.VM].Connected}
		q := queues[key]
		if q.N == 0 || row.Seq < q.First {
			q.First = row.Seq
		}
		q.Queue, q.Connected, q.N = key.Queue, key.Connected, q.N+1
		queues[key] = q
	}
	for count, n := range vms {
		count.N = n
		all.VMs = append(all.VMs, count)
	}
	all.Queues = slices.Collect(maps.Values(queues))
	return all, nil
}

// LastChange returns the number of the latest change.
func (db *DB) LastChange(ctx context.Context) (int64, error) {
	return db.number(ctx, func() int64 { return db.lastChange })
}

// Mark returns the number that was last committed with this name.
func (db *DB) Mark(ctx context.Context, name string) (int64, error) {
	return db.number(ctx, func() int64 { return db.marks[name] })
}

func (db *DB) number(ctx context.Context, read func() int64) (int64, error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return read(), db.usable(ctx)
}
