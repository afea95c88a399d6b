package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// paged reads a list page by page until a page is empty, and calls between after each. next
// returns the page after a row; nil for the first page.
func paged[R any](t *testing.T, next func(last *R) []R, between func(page int)) []R {
	t.Helper()
	var rows []R
	var last *R
	for page := 0; ; page++ {
		require.Less(t, page, 1000, "the list has no end")
		got := next(last)
		if len(got) == 0 {
			return rows
		}
		rows = append(rows, got...)
		last = &rows[len(rows)-1]
		between(page)
	}
}

// A reader of pages gets every row that exists throughout exactly once, whatever is added
// and changed meanwhile.
func pageVMs(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		w.VMs = append(w.VMs, aVM(numbered("vm", n)))
	}
	d.commit(w)
	rows := paged(t, func(last *store.VMRow) []store.VMRow {
		var q store.VMQuery
		if last != nil {
			q.After = last.ID
		}
		return d.vms(q, 3)
	}, func(page int) {
		first, final := d.vm("vm-0000"), d.vm("vm-0019")
		first.Pool, final.LastSeenAt = numbered("page", page), at(page)
		d.commit(store.Writes{VMs: []store.VMRow{aVM(numbered("a", page)), first, final}})
	})
	require.Equal(t, ids(w.VMs, vmID), ids(rows, vmID))
	require.EqualValues(t, 7, rows[19].Version, "a page is current when it is requested")
}

func pageCommands(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		w.Commands = append(w.Commands, aCommand(numbered("c", n), "vm", "normal"))
	}
	d.commit(w)
	rows := paged(t, func(last *store.CommandRow) []store.CommandRow {
		q := store.CommandQuery{VM: "vm"}
		if last != nil {
			q.Before = last.Seq
		}
		return d.commands(q, 3)
	}, func(page int) {
		first, final := d.command("c-0000"), d.command("c-0019")
		first.State, final.State = numbered("page", page), numbered("page", page)
		d.commit(store.Writes{Commands: []store.CommandRow{aCommand(numbered("more", page), "vm", "normal"), first, final}})
	})
	slices.Reverse(w.Commands)
	require.Equal(t, ids(w.Commands, commandID), ids(rows, commandID))
}

func pageEventsBack(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		w.Events = append(w.Events, anEvent("vm", numbered("n", n)))
	}
	d.commit(w)
	rows := paged(t, func(last *store.EventRow) []store.EventRow {
		var q store.EventQuery
		if last != nil {
			q.Before = last.Seq
		}
		return d.events(q, 3)
	}, func(int) { d.commit(store.Writes{Events: []store.EventRow{anEvent("vm", "more")}}) })
	slices.Reverse(w.Events)
	require.Equal(t, ids(w.Events, docOfEvent), ids(rows, docOfEvent))
}

func pageAudit(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		w.Audit = append(w.Audit, anAudit("vm", numbered("n", n)))
	}
	d.commit(w)
	rows := paged(t, func(last *store.AuditRow) []store.AuditRow {
		var q store.AuditQuery
		if last != nil {
			q.Before = last.Seq
		}
		return d.audit(q, 3)
	}, func(int) { d.commit(store.Writes{Audit: []store.AuditRow{anAudit("vm", "more")}}) })
	slices.Reverse(w.Audit)
	require.Equal(t, ids(w.Audit, docOfAudit), ids(rows, docOfAudit))
}

func pageEventsOn(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 20 {
		w.Events = append(w.Events, anEvent("vm", numbered("n", n)))
	}
	d.commit(w)
	rows := paged(t, func(last *store.EventRow) []store.EventRow {
		after := int64(0)
		if last != nil {
			after = last.Seq
		}
		return d.events(store.EventQuery{VM: "vm", After: &after}, 3)
	}, func(page int) {
		if page < 4 {
			more := anEvent("vm", fmt.Sprint("more", page))
			w.Events = append(w.Events, more)
			d.commit(store.Writes{Events: []store.EventRow{anEvent("another", ""), more}})
		}
	})
	require.Equal(t, ids(w.Events, docOfEvent), ids(rows, docOfEvent))
}

func pageHeartbeats(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	var want []string
	for n := range 40 {
		row := someHeartbeats(at(n), fmt.Sprint("vm", n%2))
		row.Doc = fmt.Append(nil, n)
		w.Heartbeats = append(w.Heartbeats, row)
		if n%2 == 0 {
			want = append(want, string(row.Doc))
		}
	}
	d.commit(w)
	rows := paged(t, func(last *store.HeartbeatRow) []store.HeartbeatRow {
		before := time.Time{}
		if last != nil {
			before = last.At
		}
		return d.heartbeats(store.HeartbeatQuery{VM: "vm0", Before: before}, 3)
	}, func(page int) {
		d.commit(store.Writes{Heartbeats: []store.HeartbeatRow{someHeartbeats(at(100+page), "vm0")}})
	})
	slices.Reverse(want)
	got := ids(rows, docOfBeats)
	require.Subset(t, ids(w.Heartbeats, docOfBeats), got, "no later row is among them")
	require.Equal(t, want, slices.DeleteFunc(got, func(doc string) bool { return !slices.Contains(want, doc) }))
}
