package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// poolSets are the pools that queries are limited to. Pool p2 is rare, and its rows are old:
// those of other pools are many more than a page. Three pools are not a power of two.
var poolSets = [][]string{nil, {"p0"}, {"p2"}, {"none"}, {"p0", "p2"}, {"p0", "p1", "p2"}, {"none", "p1", "p2", "x", "y"}}

// among reports whether one of the values is one of the pools, or there are no pools.
func among(pools []string, values ...string) bool {
	return len(pools) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(pools, v) })
}

// poolVMs are VMs in pools, VMs without one, and one without a row; with the pool of each.
func poolVMs() (rows []store.VMRow, pools map[string]string, all []string) {
	pools = map[string]string{"unknown": ""}
	for n := range 12 {
		row := aVM(numbered("vm", n))
		row.Pool, row.Status, row.Org, row.Connected = fmt.Sprint("p", n%2), fmt.Sprint("s", n%3), fmt.Sprint("o", n/2%2), n%5 < 3
		switch n {
		case 3, 4:
			row.Pool = "p2"
		case 5:
			row.Pool = ""
		}
		rows, pools[row.ID] = append(rows, row), row.Pool
	}
	return rows, pools, []string{"vm-0000", "vm-0001", "vm-0002", "vm-0005", "vm-0006", "vm-0007", "unknown"}
}

func listVMsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	rows, _, _ := poolVMs()
	d.commit(store.Writes{VMs: rows})
	for i := range rows {
		rows[i].Version = 1
	}
	for _, pools := range poolSets {
		for _, q := range vmQueries() {
			q.Pools = pools
			for _, limit := range limits {
				require.Equal(t, chosen(rows, limit, func(r store.VMRow) bool {
					return lets(q.Pool, r.Pool) && lets(q.Org, r.Org) && lets(q.Status, r.Status) &&
						(q.Connected == nil || *q.Connected == r.Connected) && r.ID > q.After && among(pools, r.Pool)
				}), d.vms(q, limit), "%+v", q)
			}
		}
	}
}

// manyRows is more than any driver may read for a short page.
const manyRows = 300

// vmOfRow returns the VM of a row: early ones are of pool p2, and later ones of all others.
func vmOfRow(n int, vms []string) string {
	if n < 6 {
		return numbered("vm", 3+n%2)
	}
	return vms[n%len(vms)]
}

func listCommandsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	rows, pools, vms := poolVMs()
	w := store.Writes{VMs: rows}
	for n := range manyRows {
		row := aCommand(numbered("c", n), vmOfRow(n, vms), "")
		row.Type, row.State = fmt.Sprint("t", n/2%2), []string{"SUCCEEDED", "FAILED", "PENDING"}[n%3]
		if row.State == "PENDING" {
			row.Queue = "plain"
		}
		w.Commands = append(w.Commands, row)
	}
	for i, seq := range d.commit(w).Commands {
		w.Commands[i].Seq, w.Commands[i].Version = seq, 1
	}
	slices.Reverse(w.Commands)
	for _, in := range poolSets {
		for _, vm := range []string{"", "vm-0003", "vm-0005", "unknown"} {
			for _, states := range [][]string{nil, {"PENDING"}, {"FAILED"}, {"SUCCEEDED", "PENDING"}, {"SUCCEEDED", "FAILED"}} {
				for _, q := range []store.CommandQuery{{}, {Type: "t1"}, {Before: w.Commands[manyRows-5].Seq}, {Before: w.Commands[9].Seq, Type: "t0"}} {
					q.Pools, q.VM, q.States = in, vm, states
					for _, limit := range limits {
						require.Equal(t, chosen(w.Commands, limit, func(r store.CommandRow) bool {
							return lets(q.VM, r.VM) && lets(q.Type, r.Type) && (q.Before == 0 || r.Seq < q.Before) &&
								(len(states) == 0 || slices.Contains(states, r.State)) && among(in, pools[r.VM])
						}), d.commands(q, limit), "%+v", q)
					}
				}
			}
		}
	}
}

func listEventsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	rows, pools, vms := poolVMs()
	w := store.Writes{VMs: rows}
	for n := range manyRows {
		row := anEvent(vmOfRow(n, vms), numbered("n", n))
		row.Type, row.ReceivedAt = fmt.Sprint("t", n%3), at(n*7%manyRows)
		w.Events = append(w.Events, row)
	}
	for i, seq := range d.commit(w).Events {
		w.Events[i].Seq = seq
	}
	up := slices.Clone(w.Events)
	slices.Reverse(w.Events)
	after := up[3].Seq
	for _, in := range poolSets {
		for _, vm := range []string{"", "vm-0003", "vm-0005", "unknown"} {
			for _, q := range []store.EventQuery{
				{},
				{Type: "t1"},
				{Before: up[4].Seq},
				{Since: at(20), Until: at(200)},
				{Type: "t0", Since: at(9), Before: up[200].Seq},
				{After: &after},
				{After: &after, Type: "t2", Until: at(100)},
			} {
				q.Pools, q.VM = in, vm
				from := w.Events
				if q.After != nil {
					from = up
				}
				for _, limit := range limits {
					require.Equal(t, chosen(from, limit, func(r store.EventRow) bool {
						return lets(q.VM, r.VM) && lets(q.Type, r.Type) && !r.ReceivedAt.Before(q.Since) &&
							(q.Until.IsZero() || r.ReceivedAt.Before(q.Until)) && (q.Before == 0 || r.Seq < q.Before) &&
							(q.After == nil || r.Seq > *q.After) && among(in, pools[r.VM])
					}), d.events(q, limit), "%+v", q)
				}
			}
		}
	}
}

// The pool that counts is the one that the VM is in now; a VM that is gone is in none.
func poolsFollow(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	row := aVM("vm")
	row.Pool = "a"
	d.commit(store.Writes{
		VMs: []store.VMRow{row}, Commands: []store.CommandRow{aCommand("c", "vm", "plain")}, Events: []store.EventRow{anEvent("vm", "e")},
	})
	require.Equal(t, []int{1, 1, 1}, d.ofPools("a"))
	require.Equal(t, []int{0, 0, 0}, d.ofPools("b", "c"))
	row.Pool, row.Version, row.Connected = "b", 1, false
	d.commit(store.Writes{VMs: []store.VMRow{row}})
	require.Equal(t, []int{0, 0, 0}, d.ofPools("a"))
	require.Equal(t, []int{1, 1, 1}, d.ofPools("b", "c"))
	row.Pool, row.Version = "", 2
	d.commit(store.Writes{VMs: []store.VMRow{row}})
	require.Equal(t, []int{0, 0, 0}, d.ofPools("a", "b"))
	row.Pool, row.Version = "b", 3
	d.commit(store.Writes{VMs: []store.VMRow{row}})
	require.Equal(t, 1, d.purge(store.Cutoffs{Now: at(9), VMs: at(9)}, all))
	require.Equal(t, []int{0, 0, 0}, d.ofPools("b"))
}

// ofPools returns how many VMs, commands and events there are in pools.
func (d *database) ofPools(pools ...string) []int {
	d.Helper()
	return []int{
		len(d.vms(store.VMQuery{Pools: pools}, all)), len(d.commands(store.CommandQuery{Pools: pools}, all)),
		len(d.events(store.EventQuery{Pools: pools}, all)),
	}
}

// movers commits VMs of which some stay in the pools a and b, some stay elsewhere, and some
// move; move moves them.
func (d *database) movers() (stays func(vm string) bool, elsewhere func(vm string) bool, vms []string, move func(page int)) {
	d.Helper()
	kind := map[string]int{}
	var rows []store.VMRow
	for n := range 24 {
		row := aVM(numbered("vm", n*7%24))
		row.Pool = []string{"a", "c", "b", ""}[n%4]
		kind[row.ID] = n % 4
		if n >= 12 { // it moves
			kind[row.ID] = -1
		}
		rows, vms = append(rows, row), append(vms, row.ID)
	}
	d.commit(store.Writes{VMs: rows})
	slices.Sort(vms)
	move = func(page int) {
		var w store.Writes
		for n, id := range vms {
			if kind[id] < 0 {
				row := d.vm(id)
				row.Pool = []string{"a", "b", "c", ""}[(n+page)%4]
				w.VMs = append(w.VMs, row)
			}
		}
		d.commit(w)
	}
	return func(vm string) bool { return kind[vm] == 0 || kind[vm] == 2 },
		func(vm string) bool { return kind[vm] == 1 || kind[vm] == 3 }, vms, move
}

// requirePages requires that rows are in this order, contain each of all that stays in the
// pools once, and nothing of VMs that were never in them.
func requirePages[R any](t *testing.T, rows, all []R, id, vm func(R) string, stays, elsewhere func(string) bool) {
	t.Helper()
	order := ids(all, id)
	last := -1
	var found, want []string
	for _, row := range rows {
		require.False(t, elsewhere(vm(row)), "%v is of none of the pools", id(row))
		at := slices.Index(order, id(row))
		require.Greater(t, at, last, "%v is not in its place", id(row))
		if last = at; stays(vm(row)) {
			found = append(found, id(row))
		}
	}
	for _, row := range all {
		if stays(vm(row)) {
			want = append(want, id(row))
		}
	}
	require.Equal(t, want, found)
}

func pageVMsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	stays, elsewhere, _, move := d.movers()
	rows := paged(t, func(last *store.VMRow) []store.VMRow {
		q := store.VMQuery{Pools: []string{"a", "b"}}
		if last != nil {
			q.After = last.ID
		}
		page := d.vms(q, 3)
		for _, row := range page {
			require.Contains(t, q.Pools, row.Pool)
		}
		return page
	}, move)
	requirePages(t, rows, d.vms(store.VMQuery{}, all), vmID, vmID, stays, elsewhere)
}

func pageCommandsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	stays, elsewhere, vms, move := d.movers()
	var w store.Writes
	for n := range 8 * len(vms) {
		w.Commands = append(w.Commands, aCommand(numbered("c", n), vms[n*n%len(vms)], ""))
	}
	d.commit(w)
	rows := paged(t, func(last *store.CommandRow) []store.CommandRow {
		q := store.CommandQuery{Pools: []string{"a", "b"}}
		if last != nil {
			q.Before = last.Seq
		}
		return d.commands(q, 3)
	}, move)
	requirePages(t, rows, d.commands(store.CommandQuery{}, all), commandID, func(r store.CommandRow) string { return r.VM }, stays, elsewhere)
}

func pageEventsOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	stays, elsewhere, vms, move := d.movers()
	var w store.Writes
	for n := range 8 * len(vms) {
		w.Events = append(w.Events, anEvent(vms[n*n%len(vms)], numbered("n", n)))
	}
	d.commit(w)
	rows := paged(t, func(last *store.EventRow) []store.EventRow {
		q := store.EventQuery{Pools: []string{"a", "b"}}
		if last != nil {
			q.Before = last.Seq
		}
		return d.events(q, 3)
	}, move)
	requirePages(t, rows, d.events(store.EventQuery{}, all), docOfEvent, func(r store.EventRow) string { return r.VM }, stays, elsewhere)
}

func listChangesOfPools(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var rows []store.ChangeRow
	for n := range 24 {
		rows = append(rows, store.ChangeRow{
			At: at(n), VM: fmt.Sprint("vm", n%2), Kind: "vm", Doc: fmt.Append(nil, n),
			Pool: []string{"", "p0", "p1", "p2"}[n%4], Left: []string{"", "p0", "p2", "", ""}[n%5],
		})
	}
	d.commit(store.Writes{Changes: rows})
	for i := range rows {
		rows[i].Seq = int64(i) + 1
	}
	for _, pools := range poolSets {
		for _, vm := range []string{"", "vm1"} {
			for _, after := range []int64{0, 11, 30} {
				for _, limit := range limits {
					q := store.ChangeQuery{VM: vm, After: after, Pools: pools}
					require.Equal(t, chosen(rows, limit, func(r store.ChangeRow) bool {
						return lets(vm, r.VM) && r.Seq > after && among(pools, r.Pool, r.Left)
					}), d.changes(q, limit), "%+v", q)
				}
			}
		}
	}
	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(30), Changes: at(2)}, all))
	_, _, err := d.Changes(t.Context(), store.ChangeQuery{Pools: []string{"none"}, After: 1}, 1)
	require.ErrorIs(t, err, store.ErrPurged, "whatever the pools of the purged changes were")
}
