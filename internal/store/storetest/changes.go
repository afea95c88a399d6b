package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// patience is how long a test waits for an expected event.
const patience = 30 * time.Second

func changesInOrder(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var rows []store.ChangeRow
	for n := range 12 {
		// Times are not in the order of the log: clocks may be set back.
		row := store.ChangeRow{At: at(50 - n), VM: fmt.Sprint("vm", n%4/3), Kind: fmt.Sprint("kind", n%3), Doc: fmt.Append(nil, n)}
		rows = append(rows, row)
	}
	d.commit(store.Writes{Changes: rows[:5]})
	d.commit(store.Writes{Changes: rows[5:6]})
	d.commit(store.Writes{Changes: rows[6:]})
	for i := range rows {
		rows[i].Seq = int64(i) + 1
	}
	for _, vm := range []string{"", "vm0", "vm1", "none"} {
		for after := range int64(14) {
			for _, limit := range limits {
				q := store.ChangeQuery{VM: vm, After: after}
				require.Equal(t, chosen(rows, limit, func(r store.ChangeRow) bool { return lets(vm, r.VM) && r.Seq > after }), d.changes(q, limit), "%+v", q)
			}
		}
	}
	require.EqualValues(t, 12, d.lastChange())
}

// A change that refers to an event has the event's document as long as the event is kept.
// The change itself is kept.
func changesOfEvents(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Events: []store.EventRow{anEvent("vm", "before")}})
	late := anEvent("vm", "late")
	late.ReceivedAt = at(50)
	ignored := aChangeOf("vm", 2)
	ignored.Doc = []byte("not shown")
	events := d.commit(store.Writes{
		Events:  []store.EventRow{anEvent("vm", "one"), late, anEvent("vm", "three")},
		Changes: []store.ChangeRow{aChangeOf("vm", 3), aChange("vm", "plain"), ignored, aChangeOf("vm", 1), aChangeOf("vm", 1)},
	}).Events
	want := []store.ChangeRow{
		{Seq: 1, At: at(7), VM: "vm", Pool: "pool of vm", Kind: "event", EventSeq: events[2], Doc: []byte("event three")},
		{Seq: 2, At: at(6), VM: "vm", Pool: "pool of vm", Left: "another", Kind: "vm", Doc: []byte("change plain")},
		{Seq: 3, At: at(7), VM: "vm", Pool: "pool of vm", Kind: "event", EventSeq: events[1], Doc: []byte("event late")},
		{Seq: 4, At: at(7), VM: "vm", Pool: "pool of vm", Kind: "event", EventSeq: events[0], Doc: []byte("event one")},
		{Seq: 5, At: at(7), VM: "vm", Pool: "pool of vm", Kind: "event", EventSeq: events[0], Doc: []byte("event one")},
	}
	require.Equal(t, want, d.changes(store.ChangeQuery{}, all))
	require.Equal(t, want[2:4], d.changes(store.ChangeQuery{VM: "vm", After: 2}, 2))

	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(60), Events: at(49), EventsThrough: events[1]}, all))
	want[3].Doc, want[4].Doc = nil, nil
	require.Equal(t, want, d.changes(store.ChangeQuery{}, all))
}

// A reader that has missed changes gets an error, even if none of them was of the VM in
// question; one that has not can continue.
func changesPurged(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	for n := range 6 {
		row := aChange(fmt.Sprint("vm", n/3), "")
		row.At = at(n)
		d.commit(store.Writes{Changes: []store.ChangeRow{row}})
	}
	before := d.contents().Changes
	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(9), Changes: at(2)}, all))
	for _, vm := range []string{"", "vm0", "vm1", "none"} {
		for after := range int64(2) {
			_, _, err := d.Changes(t.Context(), store.ChangeQuery{VM: vm, After: after}, 1)
			require.ErrorIs(t, err, store.ErrPurged, "VM %q after %d", vm, after)
		}
	}
	require.Equal(t, before[2:], d.changes(store.ChangeQuery{After: 2}, all))
	require.Equal(t, before[3:], d.changes(store.ChangeQuery{After: 2, VM: "vm1"}, all))
	require.Equal(t, before[5:], d.changes(store.ChangeQuery{After: 5}, all))
	require.EqualValues(t, 6, d.lastChange())
	d = opened(t, drivers.Crash(t, d.Driver))
	_, _, err := d.Changes(t.Context(), store.ChangeQuery{After: 1}, 1)
	require.ErrorIs(t, err, store.ErrPurged, "after a crash")
	require.Equal(t, before[2:], d.changes(store.ChangeQuery{After: 2}, all))
}

func latestChangeStays(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "1"), aChange("vm", "2"), aChange("vm", "3")}})
	cut := store.Cutoffs{Now: at(99), Changes: at(99)}
	for _, removed := range []int{2, 0} {
		require.Equal(t, removed, d.purge(cut, all))
		require.EqualValues(t, 3, d.lastChange())
		require.Equal(t, []string{"change 3"}, ids(d.changes(store.ChangeQuery{After: 2}, all), docOfChange))
	}
	require.EqualValues(t, 4, d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "4")}}).FirstChange)
	require.Equal(t, 1, d.purge(cut, all), "it is removed once there is a later one")
	require.Equal(t, []string{"change 4"}, ids(d.changes(store.ChangeQuery{After: 3}, all), docOfChange))
}

// listener collects the calls of a listener.
type listener struct {
	t     *testing.T
	stop  func()
	calls chan int64 // with capacity for all
	seen  []int64
}

func (d *database) listen() *listener {
	l := &listener{t: d.T, calls: make(chan int64, all)}
	l.stop = d.Listen(func(last int64) { l.calls <- last })
	d.Cleanup(l.stop)
	return l
}

// await waits for a call for a change, and returns all calls so far.
func (l *listener) await(change int64) []int64 {
	l.t.Helper()
	for len(l.seen) == 0 || l.seen[len(l.seen)-1] < change {
		select {
		case last := <-l.calls:
			l.seen = append(l.seen, last)
			rising(l.t, l.seen)
		case <-time.After(patience):
			require.FailNow(l.t, "no call", "for change %d; there were %v", change, l.seen)
		}
	}
	return l.seen
}

// others commits without changes, fails to commit, and purges.
func (d *database) others() {
	d.Helper()
	d.commit(store.Writes{Heartbeats: []store.HeartbeatRow{someHeartbeats(at(0), "vm")}, Events: []store.EventRow{anEvent("vm", "")}})
	_ = d.conflict(store.Writes{VMs: []store.VMRow{{ID: "missing", Version: 1}}, Changes: []store.ChangeRow{aChange("vm", "")}})
	d.purge(store.Cutoffs{Now: at(9), Changes: at(9), Heartbeats: at(9), Events: at(9), EventsThrough: 1}, all)
	d.commit(store.Writes{})
}

func listenersCalled(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "before")}})
	a, b := d.listen(), d.listen()
	d.others()
	d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", ""), aChange("vm", "")}})
	require.Subset(t, []int64{1, 3}, a.await(3), "a call has the number of the last change of a commit")
	require.Subset(t, []int64{1, 3}, b.await(3), "every listener is called")
	a.seen = nil
	d.others()
	d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "")}})
	require.Equal(t, []int64{4}, a.await(4), "nothing else causes a call, and no call is repeated")
	for n := range int64(20) {
		d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "")}})
		a.await(5 + n)
	}
}

func listenersStop(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	before, stopped, after := d.listen(), d.listen(), d.listen()
	change := func() int64 {
		return d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "")}}).FirstChange
	}
	first := change()
	stopped.await(first)
	stopped.stop()
	stopped.stop() // harmless the second time
	change()
	last := change()
	before.await(last)
	after.await(last)
	require.Empty(t, stopped.calls)
}

// A listener is called once the commit is durable and can be read.
func listenersRead(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	l := d.listen()
	var wg sync.WaitGroup
	var err error
	const commits = 100
	wg.Go(func() {
		for n := range commits {
			id := numbered("vm", n)
			if _, err = d.Commit(t.Context(), store.Writes{VMs: []store.VMRow{aVM(id)}, Changes: []store.ChangeRow{aChange(id, id)}}); err != nil {
				return
			}
		}
	})
	defer wg.Wait()
	for n := int64(0); n < commits; {
		calls := l.await(n + 1)
		n = calls[len(calls)-1]
		require.GreaterOrEqual(t, d.lastChange(), n)
		require.Equal(t, numbered("change vm", int(n)-1), docOfChange(d.changes(store.ChangeQuery{After: n - 1}, 1)[0]))
		d.vm(numbered("vm", int(n)-1))
	}
	wg.Wait()
	require.NoError(t, err)
}
