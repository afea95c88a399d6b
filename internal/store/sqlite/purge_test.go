package sqlite

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// purge removes all expired rows, and returns how many rows each step removed.
func purge(t *testing.T, db *DB, c store.Cutoffs, limit int) (steps []int) {
	t.Helper()
	for {
		n, err := db.Purge(t.Context(), c, limit)
		require.NoError(t, err)
		if n == 0 {
			return steps
		}
		steps = append(steps, n)
	}
}

// changesAt commits a change at each of some hours after t0.
func changesAt(t *testing.T, db *DB, hours ...int) {
	t.Helper()
	for _, h := range hours {
		c := change("vm")
		c.At = t0.Add(time.Duration(h) * time.Hour)
		commit(t, db, store.Writes{Changes: []store.ChangeRow{c}})
	}
}

func hour(n int) time.Time { return t0.Add(time.Duration(n) * time.Hour) }

// The oldest changes are removed up to the first that is kept, ignoring dates from a wrong
// clock. The latest change is kept, and readers that have missed some get ErrPurged.
func TestPurgeChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hours []int
		kept  int64 // the first
	}{
		{[]int{1, 2, 10, 3}, 3},
		{[]int{1, 1000, 2, 10, 11}, 4},
		{[]int{1, 2, 3}, 3},
		{[]int{10, 1, 2}, 1},
		{[]int{5}, 1},
	} {
		db := openNew(t)
		changesAt(t, db, test.hours...)
		purge(t, db, store.Cutoffs{Now: hour(20), Changes: hour(10)}, 2)
		changes, _, err := db.Changes(t.Context(), store.ChangeQuery{After: test.kept - 1}, 100)
		require.NoError(t, err)
		require.Equal(t, test.kept, changes[0].Seq, test.hours)
		require.Len(t, changes, len(test.hours)-int(test.kept)+1)
		if test.kept > 1 {
			_, _, err = db.Changes(t.Context(), store.ChangeQuery{After: test.kept - 2}, 100)
			require.ErrorIs(t, err, store.ErrPurged)
		}
		require.EqualValues(t, len(test.hours)+1, commit(t, db, store.Writes{Changes: []store.ChangeRow{change("vm")}}).FirstChange)
	}
}

// Heartbeats are removed like changes, a few rows at a time, including the latest.
func TestPurgeHeartbeats(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, h := range []int{1, 1000, 2, 3, 4, 10, 5} {
		commit(t, db, store.Writes{Heartbeats: []store.HeartbeatRow{{At: hour(h), VMs: []string{"a"}}}})
	}
	require.Equal(t, []int{2, 2, 1}, purge(t, db, store.Cutoffs{Now: hour(20), Heartbeats: hour(10)}, 2))
	require.Equal(t, []int{1}, purge(t, db, store.Cutoffs{Now: hour(30), Heartbeats: hour(11)}, 1)[1:])
}

// In the other classes, rows that no cutoff covers are kept.
func TestPurgeRows(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var w store.Writes
	for i := range 6 {
		id := strconv.Itoa(i)
		v, c := vm(id), command(id)
		v.LastSeenAt, v.Connected, c.FinishedAt = hour(i), i == 0, hour(i)
		if i == 1 {
			c.FinishedAt = time.Time{}
		}
		w.VMs, w.Commands = append(w.VMs, v), append(w.Commands, c)
		e := change("event")
		e.Event = i + 1
		w.Events = append(w.Events, store.EventRow{VM: id, Type: "t", ReceivedAt: hour(i), Doc: []byte("e" + id)})
		w.Changes = append(w.Changes, e)
	}
	done := commit(t, db, w)
	require.Empty(t, purge(t, db, store.Cutoffs{Now: hour(100)}, 10), "zero keeps all")
	for _, limit := range []int{0, -1} {
		n, err := db.Purge(t.Context(), store.Cutoffs{Now: hour(9), VMs: hour(9)}, limit)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	require.Equal(t, []int{2, 1}, purge(t, db, store.Cutoffs{Now: hour(9), VMs: hour(4)}, 2))
	require.Equal(t, []int{2, 1}, purge(t, db, store.Cutoffs{Now: hour(9), Commands: hour(4)}, 2))
	require.Equal(t, []int{2}, purge(t, db, store.Cutoffs{Now: hour(9), Events: hour(4), EventsThrough: done.Events[1]}, 2))
	changes, _, err := db.Changes(t.Context(), store.ChangeQuery{}, 10)
	require.NoError(t, err)
	for i, c := range changes {
		require.Equal(t, done.Events[i], c.EventSeq)
		if i < 2 {
			require.Empty(t, c.Doc, "the event is no longer kept")
		} else {
			require.Equal(t, fmt.Sprintf("e%d", i), string(c.Doc))
		}
	}
}

// Heartbeats are found by VM and listed latest first.
func TestHeartbeatsOfVM(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for i, vms := range [][]string{{"a", "b"}, {"b"}, {"c", "a"}, {"c"}} {
		commit(t, db, store.Writes{Heartbeats: []store.HeartbeatRow{{At: hour(i), VMs: vms, Doc: fmt.Append(nil, i)}}})
	}
	of := func(q store.HeartbeatQuery) (docs []string) {
		rows, _, err := db.Heartbeats(t.Context(), q, 3)
		require.NoError(t, err)
		for _, r := range rows {
			docs = append(docs, string(r.Doc))
		}
		return docs
	}
	require.Equal(t, []string{"2", "0"}, of(store.HeartbeatQuery{VM: "a"}))
	require.Equal(t, []string{"0"}, of(store.HeartbeatQuery{VM: "a", Before: hour(2)}))
	require.Equal(t, []string{"3", "2", "1"}, of(store.HeartbeatQuery{}))
	require.Empty(t, of(store.HeartbeatQuery{VM: "d"}))
}
