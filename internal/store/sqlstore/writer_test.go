package sqlstore

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func openTest(tb testing.TB, path string) *DB {
	tb.Helper()
	db, err := OpenSQLite(tb.Context(), path, slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func drain(tb testing.TB, id string) fleet.Command {
	tb.Helper()
	return drainWith(tb, id, "at the end of the job")
}

// bulky is a command that takes a page of the database.
func bulky(tb testing.TB, id string) fleet.Command {
	tb.Helper()
	return drainWith(tb, id, strings.Repeat("x", 4096))
}

func drainWith(tb testing.TB, id, reason string) fleet.Command {
	tb.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: "vm", Type: "drain", Params: fleet.Params{
		Strings: map[string]string{"reason": reason},
	}}.Accept(fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute}, time.Now().UTC())
	require.NoError(tb, err)
	return c
}

// TestFullDisk defends that a full disk gives errors, loses nothing that was
// accepted, and is over when there is room again. The limit is SQLite's own, so
// that the error is the one a full disk gives.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	limit := func(pages int) {
		require.NoError(t, db.update(t.Context(), func(tx *tx) error {
			var n int
			return tx.w.conn.QueryRowContext(unstoppable, fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&n)
		}))
	}
	_, err := db.Enqueue(t.Context(), bulky(t, "first"), time.Now)
	require.NoError(t, err)
	limit(1) // no more than there are now
	var accepted []string
	for i := range 50 {
		id := fmt.Sprintf("c%d", i)
		if _, err = db.Enqueue(t.Context(), bulky(t, id), time.Now); err != nil {
			break
		}
		accepted = append(accepted, id)
	}
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorContains(t, err, "full")
	_, err = db.Command(t.Context(), fleet.CommandID(fmt.Sprintf("c%d", len(accepted))))
	require.ErrorIs(t, err, fleet.ErrNotFound, "what was refused is not there")

	limit(1 << 20)
	_, err = db.Enqueue(t.Context(), bulky(t, "last"), time.Now)
	require.NoError(t, err)
	for _, id := range append(accepted, "first", "last") {
		_, err = db.Command(t.Context(), fleet.CommandID(id))
		require.NoError(t, err, id)
	}
}

// TestBadOperationHarmsNoOther defends that operations which share a
// transaction do not share their faults.
func TestBadOperationHarmsNoOther(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	// Hold the writer, so that everything after lands in one group.
	held, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		require.NoError(t, db.update(t.Context(), func(*tx) error {
			close(held)
			<-release
			return nil
		}))
	})
	<-held
	fault := errors.New("fault")
	good := drain(t, "good")
	results := make([]error, 3)
	for i, fn := range []func(*tx) error{
		func(*tx) error { return fault },
		func(*tx) error { panic("at the disco") },
		func(tx *tx) error { _, err := tx.addCommand(good, good); return err },
	} {
		all.Go(func() { results[i] = db.update(t.Context(), fn) })
	}
	require.Eventually(t, func() bool { return len(db.writer.ops) == 3 }, 5*time.Second, time.Millisecond)
	close(release)
	all.Wait()
	require.ErrorIs(t, results[0], fault)
	require.ErrorIs(t, results[0], fleet.ErrUnavailable)
	require.ErrorContains(t, results[1], "panic")
	require.NoError(t, results[2])
	_, err := db.Command(t.Context(), "good")
	require.NoError(t, err)
}

// TestCloseCommitsWhatIsQueued defends that a graceful stop loses nothing.
func TestCloseCommitsWhatIsQueued(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	var all sync.WaitGroup
	answered := make(chan fleet.CommandID, 100)
	for i := range cap(answered) {
		c := drain(t, fmt.Sprintf("c%d", i))
		all.Go(func() {
			if _, err := db.Enqueue(t.Context(), c, time.Now); err == nil {
				answered <- c.ID
			}
		})
	}
	require.NoError(t, db.Close())
	all.Wait()
	close(answered)
	again := openTest(t, path)
	for id := range answered {
		_, err := again.Command(t.Context(), id)
		require.NoError(t, err, id)
	}
}

// TestReopen defends that migrations are run once and that an odd path is only
// a path.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a b?c#d%41", "controller.db")
	db := openTest(t, path)
	id := db.ID()
	_, err := db.Enqueue(t.Context(), drain(t, "c"), time.Now)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.FileExists(t, path)
	db = openTest(t, path)
	require.Equal(t, id, db.ID())
	_, err = db.Command(t.Context(), "c")
	require.NoError(t, err)
}

// BenchmarkEnqueue shows what sharing commits is worth: the time of one durable
// command alone and with others at the same time.
func BenchmarkEnqueue(b *testing.B) {
	for _, callers := range []int{1, 100} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := openTest(b, filepath.Join(b.TempDir(), "controller.db"))
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := drain(b, string(fleet.NewCommandID()))
					if _, err := db.Enqueue(b.Context(), c, time.Now); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkHeartbeats shows the time of one durable heartbeat in a group of as
// many VMs, whose sessions are live.
func BenchmarkHeartbeats(b *testing.B) {
	db := openTest(b, filepath.Join(b.TempDir(), "controller.db"))
	register := func(vm fleet.VMID) fleet.Command {
		return fleet.Command{ID: fleet.NewCommandID(), VM: vm, Type: fleet.RegisterRunner}
	}
	now := time.Now().UTC()
	load := 12.5
	group := make([]fleet.Heartbeat, 200)
	for i := range group {
		vm := fleet.VMID(fmt.Sprintf("vm-%d", i))
		v, err := db.OpenSession(b.Context(), fleet.Hello{VM: vm, Pool: "pool-1"}, register(vm), nothing, now)
		require.NoError(b, err)
		group[i] = fleet.Heartbeat{
			Origin: fleet.Origin{VM: vm, Pool: "pool-1", Via: fleet.Stream, Epoch: v.Epoch},
			Status: "idle",
			Runner: &fleet.Runner{State: "idle", Configured: true, Name: string(vm), Labels: []string{"self-hosted", "linux"}},
			Health: &fleet.Health{CPUPercent: &load, MemoryPercent: &load, MemoryTotalBytes: 8 << 30, MemoryUsedBytes: 1 << 30},
		}
	}
	for b.Loop() {
		now = now.Add(50 * time.Millisecond)
		for i := range group {
			group[i].ReceivedAt = now
		}
		if err := db.RecordHeartbeats(b.Context(), group, register); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(group)), "ns/heartbeat")
}

// BenchmarkCommandLife shows the time of a command from its acceptance to its
// ack, with 200 VMs at the same time.
func BenchmarkCommandLife(b *testing.B) {
	db := openTest(b, filepath.Join(b.TempDir(), "controller.db"))
	var vms atomic.Int64
	b.SetParallelism(100)
	b.RunParallel(func(pb *testing.PB) {
		vm := fleet.VMID(fmt.Sprintf("vm-%d", vms.Add(1)))
		accept := func(kind string) fleet.Command {
			c, err := fleet.CommandRequest{VM: string(vm), Type: kind, Params: fleet.Params{
				Strings: map[string]string{"level": "debug"},
			}}.Accept(fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute}, time.Now().UTC())
			require.NoError(b, err)
			return c
		}
		register := accept(fleet.RegisterRunner)
		v, err := db.OpenSession(b.Context(), fleet.Hello{VM: vm}, register, nothing, time.Now().UTC())
		require.NoError(b, err)
		life := func() {
			a := store.Attempt{Via: fleet.Stream, Epoch: v.Epoch, At: time.Now().UTC()}
			c, err := db.Next(b.Context(), vm, a)
			require.NoError(b, err)
			if !c.Out(v.Epoch) {
				_, err = db.Lease(b.Context(), vm, c.ID, a)
				require.NoError(b, err)
			}
			_, _, err = db.Ack(b.Context(), vm, v.Epoch, fleet.Ack{CommandID: c.ID, Success: true}, time.Now().UTC())
			require.NoError(b, err)
			_, err = db.Next(b.Context(), vm, a)
			require.ErrorIs(b, err, fleet.ErrNothingDue)
		}
		life()
		for pb.Next() {
			_, err := db.Enqueue(b.Context(), accept("set_log_level"), time.Now)
			require.NoError(b, err)
			life()
		}
	})
}
