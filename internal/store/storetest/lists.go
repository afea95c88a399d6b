package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// limits are the limits that each query is tested with.
var limits = []int{1, 3, all}

// chosen returns the first matching rows, in the order of rows.
func chosen[R any](rows []R, limit int, fits func(R) bool) []R {
	var list []R
	for _, row := range rows {
		if fits(row) && len(list) < limit {
			list = append(list, row)
		}
	}
	return list
}

// lets reports whether a filter accepts a value.
func lets(filter, value string) bool { return filter == "" || filter == value }

// Filters are tested in every combination. The result must equal that of a trivial
// selection.
func listVMs(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 24 {
		row := aVM(numbered("vm", n))
		row.Pool, row.Org, row.Status = fmt.Sprint("p", n%2), fmt.Sprint("o", n/2%2), fmt.Sprint("s", n%3)
		row.Connected = n%5 < 3
		w.VMs = append(w.VMs, row)
	}
	first := slices.Clone(w.VMs)
	for i := range first { // earlier values are not used by lists
		first[i].Pool, first[i].Org, first[i].Status, first[i].Connected = "p0", "o0", "s0", i%2 == 0
	}
	slices.Reverse(first)
	d.commit(store.Writes{VMs: first})
	for i := range w.VMs {
		w.VMs[i].Version = 1
	}
	d.commit(w)
	for i := range w.VMs {
		w.VMs[i].Version = 2
	}

	for _, q := range vmQueries() {
		for _, limit := range limits {
			require.Equal(t, chosen(w.VMs, limit, func(r store.VMRow) bool {
				return lets(q.Pool, r.Pool) && lets(q.Org, r.Org) && lets(q.Status, r.Status) &&
					(q.Connected == nil || *q.Connected == r.Connected) && r.ID > q.After
			}), d.vms(q, limit), "%+v", q)
		}
	}
}

func vmQueries() (list []store.VMQuery) {
	yes, no := true, false
	for _, pool := range []string{"", "p1", "none"} {
		for _, org := range []string{"", "o1"} {
			for _, status := range []string{"", "s0", "s2"} {
				for _, connected := range []*bool{nil, &yes, &no} {
					for _, after := range []string{"", "vm", "vm-0007", "vm-0007-", "vm-9999"} {
						list = append(list, store.VMQuery{Pool: pool, Org: org, Status: status, Connected: connected, After: after})
					}
				}
			}
		}
	}
	return list
}

func listCommands(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 24 {
		row := aCommand(numbered("c", 99-n), fmt.Sprint("vm", n%2), "normal")
		row.Type = fmt.Sprint("t", n/2%2)
		row.State = "PENDING"
		w.Commands = append(w.Commands, row)
	}
	rows := w.Commands
	given := d.commit(w).Commands
	for i := range rows { // earlier states are not used by lists
		rows[i].Seq, rows[i].Version, rows[i].State = given[i], 1, fmt.Sprint("S", i%4)
	}
	d.commit(store.Writes{Commands: rows})
	for i := range rows {
		rows[i].Version = 2
	}
	slices.Reverse(rows)

	for _, q := range commandQueries(rows) {
		for _, limit := range limits {
			require.Equal(t, chosen(rows, limit, func(r store.CommandRow) bool {
				return lets(q.VM, r.VM) && lets(q.Type, r.Type) && (q.Before == 0 || r.Seq < q.Before) &&
					(len(q.States) == 0 || slices.Contains(q.States, r.State))
			}), d.commands(q, limit), "%+v", q)
		}
	}
}

// For each VM the command that finished last is found, whatever was accepted or finished
// since in another state.
func lastFinished(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	finished := func(id, vm, state string, when time.Time) {
		row := aCommand(id, vm, "")
		row.State, row.FinishedAt = state, when
		w.Commands = append(w.Commands, row)
	}
	finished("a last", "a", "done", at(9))
	finished("a before", "a", "done", at(8))
	finished("a in another state", "a", "gone", at(10))
	finished("a open", "a", "done", time.Time{})
	finished("b of that moment", "b", "failed", at(7))
	finished("c just before", "c", "done", at(7).Add(-1))
	for i, seq := range d.commit(w).Commands {
		w.Commands[i].Seq, w.Commands[i].Version = seq, 1
	}
	for _, test := range []struct {
		states []string
		since  time.Time
		want   []int
	}{
		{[]string{"done", "failed"}, at(7), []int{0, 4}},
		{[]string{"done"}, at(7), []int{0}},
		{[]string{"gone"}, at(0), []int{2}},
		{[]string{"done"}, at(0), []int{0, 5}},
		{[]string{"done", "failed"}, at(9).Add(1), nil},
	} {
		var want []store.CommandRow
		for _, i := range test.want {
			want = append(want, w.Commands[i])
		}
		rows, _, err := d.LastFinished(t.Context(), store.FinishedQuery{States: test.states, Since: test.since}, all)
		require.NoError(t, err)
		require.ElementsMatch(t, want, tidy(rows, tidyCommand), "%+v", test)
	}
}

func commandQueries(rows []store.CommandRow) (list []store.CommandQuery) {
	for _, vm := range []string{"", "vm1", "none"} {
		for _, kind := range []string{"", "t1"} {
			for _, states := range [][]string{nil, {}, {"S1"}, {"S0", "S3"}, {"S2", "S2", "none"}, {"PENDING"}} {
				for _, before := range []int64{0, rows[23].Seq, rows[11].Seq, rows[0].Seq + 99} {
					list = append(list, store.CommandQuery{VM: vm, Type: kind, States: states, Before: before})
				}
			}
		}
	}
	return list
}

func listEvents(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 24 {
		row := anEvent(fmt.Sprint("vm", n%2), numbered("n", n))
		row.Type, row.ReceivedAt = fmt.Sprint("t", n%3), at(n*7%24) // not in the order of Seq
		w.Events = append(w.Events, row)
	}
	for i, seq := range d.commit(w).Events {
		w.Events[i].Seq = seq
	}
	rising, falling := w.Events, slices.Clone(w.Events)
	slices.Reverse(falling)
	for _, q := range eventQueries(rising) {
		for _, limit := range limits {
			rows := falling
			if q.After != nil {
				rows = rising
			}
			require.Equal(t, chosen(rows, limit, func(r store.EventRow) bool {
				return lets(q.VM, r.VM) && lets(q.Type, r.Type) &&
					!r.ReceivedAt.Before(q.Since) && (q.Until.IsZero() || r.ReceivedAt.Before(q.Until)) &&
					(q.Before == 0 || r.Seq < q.Before) && (q.After == nil || r.Seq > *q.After)
			}), d.events(q, limit), "%+v", q)
		}
	}
}

func eventQueries(rows []store.EventRow) (list []store.EventQuery) {
	zero, middle := int64(0), rows[9].Seq
	for _, vm := range []string{"", "vm1"} {
		for _, kind := range []string{"", "t2", "none"} {
			for _, since := range []time.Time{{}, at(5), at(5).Add(1)} {
				for _, until := range []time.Time{{}, at(17), at(17).Add(1), at(5)} {
					for _, before := range []int64{0, rows[0].Seq, rows[12].Seq} {
						for _, after := range []*int64{nil, &zero, &middle} {
							list = append(list, store.EventQuery{VM: vm, Type: kind, Since: since, Until: until, Before: before, After: after})
						}
					}
				}
			}
		}
	}
	return list
}

func listAudit(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	w := store.Writes{VMs: []store.VMRow{aVM("vm0"), aVM("vm1"), aVM("vm2")}}
	for n := range 24 {
		row := anAudit([]string{"", "vm0", "vm1", "vm2", "never seen"}[n%5], numbered("n", n))
		row.Principal, row.Action, row.Outcome = fmt.Sprint("p", n%2), fmt.Sprint("a", n/2%2), []string{"ok", "not_found", "internal"}[n%3]
		row.At = at(n * 7 % 24) // not in the order of Seq
		w.Audit = append(w.Audit, row)
	}
	for i := range w.VMs {
		w.VMs[i].Pool = fmt.Sprint("pool", i)
	}
	d.commit(w)
	moved := d.vm("vm2")
	moved.Pool = "pool0" // the pool at the moment counts
	d.commit(store.Writes{VMs: []store.VMRow{moved}})
	pools := map[string]string{"vm0": "pool0", "vm1": "pool1", "vm2": "pool0"}
	rows := d.audit(store.AuditQuery{}, all)
	for i := range rows[1:] {
		require.Less(t, rows[i+1].Seq, rows[i].Seq, "highest Seq first")
	}
	slices.Reverse(w.Audit)
	require.Equal(t, w.Audit, tidy(rows, tidyAudit))
	for _, q := range auditQueries(rows) {
		for _, limit := range limits {
			require.Equal(t, chosen(rows, limit, func(r store.AuditRow) bool {
				return lets(q.Principal, r.Principal) && lets(q.Action, r.Action) && lets(q.VM, r.VM) && lets(q.Command, r.Command) &&
					lets(q.Outcome, r.Outcome) && !r.At.Before(q.Since) && (q.Until.IsZero() || r.At.Before(q.Until)) &&
					(q.Before == 0 || r.Seq < q.Before) && (len(q.Pools) == 0 || slices.Contains(q.Pools, pools[r.VM]))
			}), tidy(d.audit(q, limit), func(*store.AuditRow) {}), "%+v", q)
		}
	}
}

func auditQueries(rows []store.AuditRow) (list []store.AuditQuery) {
	bounds := []store.AuditQuery{{}, {Since: at(5)}, {Since: at(5).Add(1), Until: at(17), Before: rows[9].Seq}, {Until: at(17).Add(1)}}
	for _, q := range bounds {
		for _, q.Principal = range []string{"", "p1"} {
			for _, q.Action = range []string{"", "a1"} {
				for _, q.Outcome = range []string{"", "ok", "not_found"} {
					for _, q.Pools = range [][]string{nil, {"pool0"}, {"pool1", "pool2", "pool1"}} {
						list = append(list, q)
						q.VM = "vm1"
						list = append(list, q)
						q.VM, q.Command = "", "c of vm1"
						list = append(list, q)
						q.Command = ""
					}
				}
			}
		}
	}
	return list
}

func listHeartbeats(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 24 {
		vms := []string{fmt.Sprint("vm", n%3), fmt.Sprint("other", n)}
		if n%4 == 0 {
			vms = append([]string{"vm9"}, vms...)
		}
		w.Heartbeats = append(w.Heartbeats, someHeartbeats(at(n*7%24), vms...)) // not in order
	}
	d.commit(store.Writes{Heartbeats: w.Heartbeats[:10]})
	d.commit(store.Writes{Heartbeats: w.Heartbeats[10:]})
	latest := func(a, b store.HeartbeatRow) int { return b.At.Compare(a.At) }
	rows := slices.SortedFunc(slices.Values(w.Heartbeats), latest)

	for _, before := range []time.Time{{}, at(0), at(11), at(11).Add(1), at(99)} {
		earlier := func(r store.HeartbeatRow) bool { return before.IsZero() || r.At.Before(before) }
		for _, limit := range limits {
			require.Equal(t, tidy(chosen(rows, limit, earlier), tidyHeartbeats), d.heartbeats(store.HeartbeatQuery{Before: before}, limit))
		}
		for _, vm := range []string{"vm0", "vm2", "vm9", "other7", "none"} {
			got := d.heartbeats(store.HeartbeatQuery{VM: vm, Before: before}, all)
			require.True(t, slices.IsSortedFunc(got, latest), "latest first")
			require.Subset(t, tidy(chosen(rows, all, earlier), tidyHeartbeats), got)
			require.Subset(t, got, tidy(chosen(rows, all, func(r store.HeartbeatRow) bool {
				return earlier(r) && slices.Contains(r.VMs, vm)
			}), tidyHeartbeats))
			require.LessOrEqual(t, len(d.heartbeats(store.HeartbeatQuery{VM: vm, Before: before}, 2)), 2)
		}
	}
}

func sameMoment(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	rows := []store.HeartbeatRow{someHeartbeats(at(1), "a"), someHeartbeats(at(1), "a", "b"), someHeartbeats(at(1), "a"), someHeartbeats(at(1), "c")}
	d.commit(store.Writes{Heartbeats: rows[:2]})
	d.commit(store.Writes{Heartbeats: rows[2:]})
	require.ElementsMatch(t, ids(rows, docOfBeats), ids(d.heartbeats(store.HeartbeatQuery{}, all), docOfBeats))
	require.Subset(t, ids(d.heartbeats(store.HeartbeatQuery{VM: "b"}, all), docOfBeats), []string{"heartbeats of a b"})
}

func listDue(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		vm, c := aVM(numbered("vm", n)), aCommand(numbered("c", n), "vm", "normal")
		vm.DueAt, c.DueAt = at(n*7%20), at(n*3%20+100)
		w.VMs, w.Commands = append(w.VMs, vm), append(w.Commands, c)
	}
	never, once := aVM("never"), aCommand("once", "vm", "")
	never.DueAt = time.Time{}
	once.DueAt = at(1)
	for n, seq := range d.commit(store.Writes{VMs: append(w.VMs, never), Commands: append(w.Commands, once)}).Commands[:20] {
		w.Commands[n].Seq, w.Commands[n].Version, w.VMs[n].Version = seq, 1, 1
	}
	once = d.command("once")
	once.DueAt = time.Time{}
	d.commit(store.Writes{Commands: []store.CommandRow{once}}) // no longer due
	slices.SortFunc(w.VMs, func(a, b store.VMRow) int { return a.DueAt.Compare(b.DueAt) })
	slices.SortFunc(w.Commands, func(a, b store.CommandRow) int { return a.DueAt.Compare(b.DueAt) })

	for _, now := range []time.Time{at(-1), at(0), at(7).Add(-1), at(7), at(99), at(100), at(109), at(500)} {
		for _, limit := range limits {
			require.Equal(t, store.Rows{
				VMs:      chosen(w.VMs, limit, func(r store.VMRow) bool { return !r.DueAt.After(now) }),
				Commands: chosen(w.Commands, limit, func(r store.CommandRow) bool { return !r.DueAt.After(now) }),
			}, d.due(now, limit), "%s, limit %d", now, limit)
		}
	}
}
