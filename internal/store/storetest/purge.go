package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Rows before the cutoff are removed, but not those exactly at it.
func purgeCutoffs(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	vm := func(id string, seen time.Time, connected bool) store.VMRow {
		return store.VMRow{ID: id, LastSeenAt: seen, Connected: connected, Doc: []byte(id)}
	}
	command := func(id string, finished time.Time) store.CommandRow {
		return store.CommandRow{ID: id, VM: "vm", FinishedAt: finished, DueAt: at(-9), Doc: []byte(id)}
	}
	event := func(text string, received time.Time) store.EventRow {
		return store.EventRow{VM: "vm", ReceivedAt: received, Doc: []byte(text)}
	}
	past, moment, later := at(10).Add(-1), at(10), at(10).Add(1)
	w := store.Writes{
		VMs: []store.VMRow{
			vm("connected", past, true), vm("later", later, false), vm("moment", moment, false), vm("never", time.Time{}, false), vm("past", past, false), vm("past too", at(-50), false),
		},
		Commands: []store.CommandRow{command("open", time.Time{}), command("past", past), command("later", later), command("moment", moment), command("past too", at(-50))},
		Events:   []store.EventRow{event("later", later), event("past", past), event("moment", moment), event("past too", at(-50)), event("pending", past)},
		Audit: []store.AuditRow{
			{At: later, Doc: []byte("later")}, {At: past, Doc: []byte("past")}, {At: moment, Doc: []byte("moment")}, {At: at(-50), Doc: []byte("past too")},
		},
		Marks: map[string]int64{"journaled": 1},
	}
	given := d.commit(w)
	cut := store.Cutoffs{Now: at(20), VMs: moment, Commands: moment, Events: moment, EventsThrough: given.Events[3], Audit: moment}
	for _, removed := range []int{8, 0} {
		require.Equal(t, removed, d.purge(cut, all))
		has := d.contents()
		require.Equal(t, []string{"connected", "later", "moment", "never"}, ids(has.VMs, vmID))
		require.Equal(t, []string{"moment", "later", "open"}, ids(has.Commands, commandID))
		require.Equal(t, []string{"pending", "moment", "later"}, ids(has.Events, docOfEvent), "those above EventsThrough are kept")
		require.Equal(t, []string{"moment", "later"}, ids(has.Audit, docOfAudit))
		require.EqualValues(t, 1, has.Marks["journaled"])
	}
	require.Empty(t, d.load(store.Keys{VMs: []string{"past"}, Commands: []string{"past"}}))
	require.Len(t, d.due(at(0), all).Commands, 3)

	cut.EventsThrough = given.Events[4]
	require.Equal(t, 1, d.purge(cut, all))
	require.Equal(t, []string{"moment", "later"}, ids(d.contents().Events, docOfEvent))
}

func purgeWithoutCutoffs(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	w := full()
	for i := range w.VMs {
		w.VMs[i].Connected = false
	}
	future := at(0).AddDate(1, 0, 0)
	w.Changes[0].At, w.Heartbeats[0].At = future, future
	d.commit(w)
	before := d.contents()
	require.Zero(t, d.purge(store.Cutoffs{Now: at(9), EventsThrough: 99}, all))
	require.Equal(t, before, d.contents())
	require.Zero(t, d.purge(store.Cutoffs{Now: at(9), Events: at(99)}, all), "no event is below zero")
	require.Equal(t, before, d.contents())

	// A cutoff affects one class only.
	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(9), VMs: at(99)}, all))
	before.VMs = before.VMs[2:]
	require.Equal(t, before, d.contents())
	require.Equal(t, 1, d.purge(store.Cutoffs{Now: at(9), Commands: at(99)}, all))
	before.Commands = before.Commands[:1]
	require.Equal(t, before, d.contents())
	require.Equal(t, 3, d.purge(store.Cutoffs{Now: at(9), Audit: at(99)}, all))
	before.Audit = nil
	require.Equal(t, before, d.contents())
}

// times are the dates of rows that are purged in order of their commits, with a cutoff of
// at(10): the clock was wrong for some.
func times(now time.Time) (list []time.Time, removed int) {
	day := 24 * time.Hour
	return []time.Time{
		at(1), now.Add(day + 1), at(10).Add(-1), now.AddDate(9, 0, 0), at(0), // these have expired
		now.Add(day), at(2), at(50), at(3), // and these are kept, because the first of them is
	}, 5
}

func purgeChanges(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	list, removed := times(at(60))
	var w store.Writes
	for n, when := range list {
		w.Changes = append(w.Changes, store.ChangeRow{At: when, VM: "vm", Doc: fmt.Append(nil, n)})
	}
	d.commit(w)
	before := d.contents()
	require.Equal(t, removed, d.purge(store.Cutoffs{Now: at(60), Changes: at(10)}, all))
	require.EqualValues(t, removed, d.purgedChanges())
	before.Changes = before.Changes[removed:]
	require.Equal(t, before, d.contents())
	require.Zero(t, d.purge(store.Cutoffs{Now: at(60), Changes: at(10)}, all))

	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(60).Add(-1), Changes: at(10)}, all), "a little earlier, the next one is in the future")
}

func purgeHeartbeats(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	list, removed := times(at(60))
	var rows []store.HeartbeatRow
	for n, when := range list {
		rows = append(rows, store.HeartbeatRow{At: when, VMs: []string{"vm"}, Doc: fmt.Append(nil, n)})
		d.commit(store.Writes{Heartbeats: rows[n:]})
	}
	require.Equal(t, removed, d.purge(store.Cutoffs{Now: at(60), Heartbeats: at(10)}, all))
	has := d.heartbeats(store.HeartbeatQuery{}, all)
	require.ElementsMatch(t, tidy(slices.Clone(rows[removed:]), tidyHeartbeats), has)
	require.Subset(t, d.heartbeats(store.HeartbeatQuery{VM: "vm"}, all), has)
	require.Zero(t, d.purge(store.Cutoffs{Now: at(60), Heartbeats: at(10)}, all))
	require.Equal(t, len(has), d.purge(store.Cutoffs{Now: at(99), Heartbeats: at(60).Add(48 * time.Hour)}, all), "the latest may be removed")
	require.Empty(t, d.heartbeats(store.HeartbeatQuery{}, all))
}

// A purge removes a bounded number of rows, possibly less than the bound. Repeating it
// until it removes nothing removes all.
func purgeLimit(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 7 {
		vm := aVM(numbered("vm", n))
		vm.Connected = false
		w.VMs = append(w.VMs, vm)
		w.Commands = append(w.Commands, aCommand(numbered("c", n), "vm", "normal"))
		w.Events = append(w.Events, anEvent("vm", numbered("n", n)))
		w.Heartbeats = append(w.Heartbeats, someHeartbeats(at(n), "vm"))
		w.Changes = append(w.Changes, aChange("vm", numbered("n", n)))
		w.Audit = append(w.Audit, anAudit("vm", numbered("n", n)))
	}
	w.Changes = append(w.Changes, aChange("vm", "latest"))
	d.commit(w)
	cut := store.Cutoffs{Now: at(99), Changes: at(99), Heartbeats: at(99), Events: at(99), EventsThrough: 99, Commands: at(99), VMs: at(99), Audit: at(99)}
	before := d.contents().sizes()
	for range 6 * 7 {
		removed := d.purge(cut, 3)
		after, fewer := d.contents().sizes(), 0
		for class, size := range before {
			require.LessOrEqual(t, size-after[class], 3, "class %d", class)
			fewer += size - after[class]
		}
		require.Equal(t, fewer, removed)
		if removed == 0 {
			break
		}
		before = after
	}
	require.Equal(t, []int{0, 0, 0, 0, 1, 0}, before, "all are removed but the latest change")
}

// sizes returns the number of rows of each class.
func (c contents) sizes() []int {
	return []int{len(c.VMs), len(c.Commands), len(c.Events), len(c.Heartbeats), len(c.Changes), len(c.Audit)}
}

// Commands in a queue are purged like others.
func purgeQueues(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	open := aCommand("open", "vm", "normal")
	open.FinishedAt = time.Time{}
	d.commit(store.Writes{VMs: []store.VMRow{aVM("vm")}, Commands: []store.CommandRow{aCommand("finished", "vm", "normal"), open}})
	require.Equal(t, 1, d.purge(store.Cutoffs{Now: at(9), Commands: at(9)}, all))
	keys := store.Keys{VMs: []string{"vm", "another"}, Queues: []string{"normal", "urgent"}, Depth: 1}
	require.Equal(t, []string{"open"}, ids(d.load(keys).Commands, commandID))

	// An id that has become free can be used for another VM.
	d.commit(store.Writes{Commands: []store.CommandRow{aCommand("finished", "another", "urgent")}})
	require.Equal(t, []string{"finished", "open"}, ids(d.load(keys).Commands, commandID))
	require.Equal(t, []string{"open"}, ids(d.load(store.Keys{VMs: []string{"vm"}, Queues: keys.Queues, Depth: 9}).Commands, commandID))
}
