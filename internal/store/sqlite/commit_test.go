package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// everything is the whole content of a database, for comparison.
func everything(t *testing.T, db *DB) string {
	t.Helper()
	var all strings.Builder
	for _, call := range []func() (any, error){
		func() (any, error) { rows, _, err := db.VMs(t.Context(), store.VMQuery{}, 1000); return rows, err },
		func() (any, error) {
			rows, _, err := db.Commands(t.Context(), store.CommandQuery{}, 1000)
			return rows, err
		},
		func() (any, error) {
			rows, _, err := db.Events(t.Context(), store.EventQuery{}, 1000)
			return rows, err
		},
		func() (any, error) {
			rows, _, err := db.Heartbeats(t.Context(), store.HeartbeatQuery{}, 1000)
			return rows, err
		},
		func() (any, error) {
			rows, _, err := db.Changes(t.Context(), store.ChangeQuery{}, 1000)
			return rows, err
		},
		func() (any, error) { return db.Mark(t.Context(), "mark") },
	} {
		got, err := call()
		require.NoError(t, err)
		fmt.Fprintf(&all, "%+v\n", got)
	}
	return all.String()
}

// Rows are read as they were committed, including those without times or documents.
func TestRowsComeBack(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	v, c := vm("vm"), command("c")
	v.DueAt, v.Connected, c.FinishedAt = t0.Add(time.Second), true, t0
	done := commit(t, db, store.Writes{
		VMs:      []store.VMRow{v, {ID: "bare"}},
		Commands: []store.CommandRow{c, {ID: "bare", VM: "bare"}},
	})
	v.Row, v.Version, c.Version, c.Seq = 1, 1, 1, done.Commands[0]
	rows, err := db.Load(t.Context(), store.Keys{VMs: []string{"vm", "vm", "none"}, Commands: []string{"c", "none", "c"}})
	require.NoError(t, err)
	require.Equal(t, store.Rows{VMs: []store.VMRow{v}, Commands: []store.CommandRow{c}}, rows)
	rows, err = db.Load(t.Context(), store.Keys{
		VMs: []string{"vm", "bare"}, Queues: []string{"out", "plain", "plain"}, Depth: 1, Commands: []string{"c", "bare"},
	})
	require.NoError(t, err)
	require.ElementsMatch(t, []store.VMRow{v, {Row: 2, ID: "bare", Version: 1}}, rows.VMs)
	require.ElementsMatch(t, []store.CommandRow{c, {ID: "bare", VM: "bare", Seq: done.Commands[1], Version: 1}}, rows.Commands)
}

// A commit that conflicts names all conflicting rows and changes nothing: no number is used
// up and no listener is notified.
func TestConflict(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	first := commit(t, db, store.Writes{
		VMs: []store.VMRow{vm("a"), vm("b")}, Commands: []store.CommandRow{command("c"), command("d")},
		Changes: []store.ChangeRow{change("vm")}, Marks: map[string]int64{"mark": 1},
	})
	db.Listen(func(int64) { t.Error("notified") })
	before := everything(t, db)
	old := func(v store.VMRow) store.VMRow { v.Version = 2; return v }
	stale := command("d")
	stale.Version, stale.Seq = 9, first.Commands[1]
	gone := command("gone")
	gone.Version = 1
	good := vm("b")
	good.Version = 1
	_, err := db.Commit(t.Context(), store.Writes{
		VMs:      []store.VMRow{vm("new"), vm("a"), good, old(vm("none"))},
		Commands: []store.CommandRow{command("new"), command("c"), stale, gone},
		Events:   []store.EventRow{{VM: "a", Type: "t", ReceivedAt: t0}}, Heartbeats: []store.HeartbeatRow{{At: t0}},
		Changes: []store.ChangeRow{change("vm")}, Marks: map[string]int64{"mark": 2},
	})
	var conflict *store.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, &store.ConflictError{VMs: []string{"a", "none"}, Commands: []string{"c", "d", "gone"}}, conflict)
	require.Equal(t, before, everything(t, db))
}

// Changes are numbered without gaps, and listeners are notified in order, with many
// concurrent commits.
func TestChangesAreInOrder(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var calls []int64
	stop := db.Listen(func(last int64) { calls = append(calls, last) })
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				_, err := db.Commit(t.Context(), store.Writes{
					VMs: []store.VMRow{vm(fmt.Sprintf("%d-%d", i, j))}, Changes: []store.ChangeRow{change("a"), change("b")},
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	stop()
	require.Len(t, calls, 80)
	for i, last := range calls {
		require.EqualValues(t, 2*(i+1), last)
	}
	changes, _, err := db.Changes(t.Context(), store.ChangeQuery{}, 1000)
	require.NoError(t, err)
	for i, c := range changes {
		require.EqualValues(t, i+1, c.Seq)
	}
	done := commit(t, db, store.Writes{Changes: []store.ChangeRow{change("a")}})
	require.EqualValues(t, 161, done.FirstChange)
	require.Len(t, calls, 80, "none after stop")
}

// A commit whose context ends while it waits for its turn is not made.
func TestCommitStopsWaiting(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, db.write(t.Context(), func(context.Context, *conn) (int64, error) {
		cancel()
		_, err := db.Commit(ctx, store.Writes{VMs: []store.VMRow{vm("a")}})
		require.ErrorIs(t, err, context.Canceled)
		return 0, nil
	}))
	vms, _, err := db.VMs(t.Context(), store.VMQuery{}, 1)
	require.NoError(t, err)
	require.Empty(t, vms)
}

// A change that names an event outside its commit is rejected.
func TestChangeOfUnknownEvent(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	c := change("event")
	c.Event = 2
	_, err := db.Commit(t.Context(), store.Writes{
		Events: []store.EventRow{{VM: "vm", Type: "t", ReceivedAt: t0}}, Changes: []store.ChangeRow{c},
	})
	require.ErrorContains(t, err, "no event 2 among 1")
}

// A mark cannot overwrite the driver's own names.
func TestMarkOfTheDriver(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := db.ID()
	for _, name := range []string{"store_id", "checks", "purged_change"} {
		before, err := db.Mark(t.Context(), name) // the mark of an id may be any number
		require.NoError(t, err)
		_, err = db.Commit(t.Context(), store.Writes{Marks: map[string]int64{name: before + 9}})
		require.ErrorContains(t, err, "the name "+name+" is reserved by the driver")
		n, err := db.Mark(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, before, n)
	}
	require.NoError(t, db.readID(t.Context()))
	require.Equal(t, id, db.ID())
}

// A full disk gives errors and loses nothing that was committed; writes succeed again once
// there is space. The limit is SQLite's own, so the error is that of a full disk.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	limit := func(pages int) {
		require.NoError(t, db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
			_, err := c.number(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return 0, err
		}))
	}
	bulky := func(id string) store.Writes {
		v := vm(id)
		v.Doc = make([]byte, 4096)
		return store.Writes{VMs: []store.VMRow{v}, Changes: []store.ChangeRow{change("vm")}}
	}
	commit(t, db, bulky("first"))
	limit(1) // not more than exist
	var err error
	kept := 1
	for i := range 50 {
		if _, err = db.Commit(t.Context(), bulky(fmt.Sprintf("vm-%d", i))); err != nil {
			break
		}
		kept++
	}
	require.ErrorContains(t, err, "full")
	vms, _, err := db.VMs(t.Context(), store.VMQuery{}, 100)
	require.NoError(t, err)
	require.Len(t, vms, kept)
	limit(1 << 20)
	require.EqualValues(t, kept+1, commit(t, db, bulky("last")).FirstChange)
}

// A context that ends at any point of a Load leaves the connection usable: later reads see
// later commits.
func TestLoadThatIsCancelled(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	keys := store.Keys{VMs: []string{"vm"}, Queues: []string{"plain"}, Depth: 1}
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		_, _ = db.Load(ctx, keys)
		_, _, _ = db.VMs(ctx, store.VMQuery{}, 1)
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, db.read(ctx, func(c *conn) error {
		cancel()
		l := loading{keys: keys, conn: c}
		require.ErrorIs(t, c.transact(ctx, "BEGIN", func() error { return l.load(ctx) }), context.Canceled)
		return nil
	}))
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("vm")}})
	for range 2 * readers {
		rows, err := db.Load(t.Context(), keys)
		require.NoError(t, err)
		require.Len(t, rows.VMs, 1)
	}
}

// However many changes a commit has, they are read as they were committed, in order.
func TestManyChanges(t *testing.T) {
	t.Parallel()
	db, next := openNew(t), int64(1)
	for n := range 26 {
		var w store.Writes
		for i := range n {
			c := change(fmt.Sprintf("%d-%d", n, i))
			if i%3 == 1 {
				w.Events = append(w.Events, store.EventRow{VM: "vm", Type: "t", ReceivedAt: t0, Doc: c.Doc})
				c.Doc, c.Event = nil, len(w.Events)
			}
			w.Changes = append(w.Changes, c)
		}
		done := commit(t, db, w)
		if n == 0 {
			require.Zero(t, done.FirstChange)
			continue
		}
		require.Equal(t, next, done.FirstChange)
		changes, _, err := db.Changes(t.Context(), store.ChangeQuery{After: next - 1}, 100)
		require.NoError(t, err)
		require.Len(t, changes, n)
		for i, c := range changes {
			want := change(fmt.Sprintf("%d-%d", n, i))
			want.Seq = next + int64(i)
			if i%3 == 1 {
				want.EventSeq = done.Events[i/3]
			}
			require.Equal(t, want, c)
		}
		next += int64(n)
	}
}
