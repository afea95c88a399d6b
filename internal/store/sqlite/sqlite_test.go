package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for an expected event.
const patience = time.Minute

var t0 = time.Unix(1_700_000_000, 5).UTC()

func openTest(tb testing.TB, path string) *DB {
	tb.Helper()
	db, err := Open(tb.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func openNew(tb testing.TB) *DB {
	tb.Helper()
	return openTest(tb, filepath.Join(tb.TempDir(), "controller.db"))
}

func commit(tb testing.TB, db *DB, w store.Writes) store.Committed {
	tb.Helper()
	done, err := db.Commit(tb.Context(), w)
	require.NoError(tb, err)
	return done
}

// logs is a log that can be read while it is being written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func openLogged(t *testing.T, path string) (*DB, *logs) {
	t.Helper()
	text := new(logs)
	db, err := Open(t.Context(), path, slog.New(slog.NewTextHandler(text, nil)), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db, text
}

// vm returns a new row of a VM, and command one of a command.
func vm(id string) store.VMRow {
	return store.VMRow{ID: id, Pool: "p", Org: "o", Status: "idle", LastSeenAt: t0, Doc: []byte(`{"id":"` + id + `"}`)}
}

func command(id string) store.CommandRow {
	return store.CommandRow{
		ID: id, VM: "vm", Type: "drain", State: "PENDING", Queue: "plain", DueAt: t0.Add(time.Hour), Doc: []byte(`{}`),
	}
}

func change(kind string) store.ChangeRow {
	return store.ChangeRow{At: t0, VM: "vm", Kind: kind, Doc: []byte(`{"kind":"` + kind + `"}`)}
}

// Whether a commit survives a power loss cannot be seen from within a process; this checks
// that SQLite is configured to sync each commit before it returns.
func TestDurability(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	require.NoError(t, db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
		var mode string
		err := c.sql.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
		require.Equal(t, "wal", mode)
		require.NoError(t, err)
		sync, err := c.number(ctx, "PRAGMA synchronous")
		require.EqualValues(t, 2, sync, "FULL")
		return 0, err
	}))
}

// A path may contain characters that are special in a URI, name directories that do not
// exist, and contain a symbolic link.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"100%25 b?mode=ro&c#d.db", "ü/new/c.db"} {
		path := filepath.Join(t.TempDir(), name)
		commit(t, openTest(t, path), store.Writes{VMs: []store.VMRow{vm("a")}})
		require.FileExists(t, path)
	}
	target, link := filepath.Join(t.TempDir(), "target.db"), filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.WriteFile(link+"-wal", []byte("of another database"), 0o600))
	db := openTest(t, link)
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a")}})
	require.FileExists(t, target+"-wal")
	require.NoError(t, db.Close())
	rows, err := openTest(t, target).Load(t.Context(), store.Keys{VMs: []string{"a"}})
	require.NoError(t, err)
	require.Len(t, rows.VMs, 1)
}

// A closed database is a single file: a copy made after a stop is complete.
func TestCloseLeavesOneFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	id := db.ID()
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a")}, Changes: []store.ChangeRow{change("vm")}})
	_, err := db.Load(t.Context(), store.Keys{VMs: []string{"a"}, Queues: []string{"out"}, Depth: 1})
	require.NoError(t, err)
	_, _, err = db.Changes(t.Context(), store.ChangeQuery{}, 1)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.NoError(t, db.Close())

	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{path}, files)
	again := openTest(t, path)
	require.Equal(t, id, again.ID())
	rows, err := again.Load(t.Context(), store.Keys{VMs: []string{"a"}})
	require.NoError(t, err)
	require.Len(t, rows.VMs, 1)
}

// Every method of a closed database returns ErrClosed.
func TestClosed(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	require.NoError(t, db.Close())
	for name, call := range everyMethod(db) {
		require.ErrorIs(t, call(t.Context()), store.ErrClosed, name)
	}
}

// everyMethod calls every method that uses the database.
func everyMethod(db *DB) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Load":   func(ctx context.Context) error { _, err := db.Load(ctx, store.Keys{VMs: []string{"a"}}); return err },
		"Commit": func(ctx context.Context) error { _, err := db.Commit(ctx, store.Writes{}); return err },
		"Check":  db.Check,
		"Purge": func(ctx context.Context) error {
			_, err := db.Purge(ctx, store.Cutoffs{Now: t0, VMs: t0}, 1)
			return err
		},
		"VMs":      func(ctx context.Context) error { _, _, err := db.VMs(ctx, store.VMQuery{}, 1); return err },
		"Commands": func(ctx context.Context) error { _, _, err := db.Commands(ctx, store.CommandQuery{}, 1); return err },
		"Events":   func(ctx context.Context) error { _, _, err := db.Events(ctx, store.EventQuery{}, 1); return err },
		"Heartbeats": func(ctx context.Context) error {
			_, _, err := db.Heartbeats(ctx, store.HeartbeatQuery{}, 1)
			return err
		},
		"Due":        func(ctx context.Context) error { _, _, err := db.Due(ctx, t0, 1); return err },
		"Changes":    func(ctx context.Context) error { _, _, err := db.Changes(ctx, store.ChangeQuery{}, 1); return err },
		"Counts":     func(ctx context.Context) error { _, err := db.Counts(ctx); return err },
		"LastChange": func(ctx context.Context) error { _, err := db.LastChange(ctx); return err },
		"Mark":       func(ctx context.Context) error { _, err := db.Mark(ctx, "m"); return err },
	}
}

// Close waits for calls in progress, which succeed.
func TestCloseCompletes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	begun, release, closed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	written := make(chan error, 1)
	go func() {
		written <- db.write(context.Background(), func(ctx context.Context, c *conn) (int64, error) { //nolint:usetesting // must outlive the context of the test
			close(begun)
			<-release
			_, err := c.commit(ctx, store.Writes{VMs: []store.VMRow{vm("a")}})
			return 0, err
		})
	}()
	<-begun
	go func() { closed <- db.Close() }()
	require.Eventually(t, func() bool { _, err := db.LastChange(t.Context()); return err != nil }, patience, time.Millisecond)
	require.Empty(t, closed)
	close(release)
	require.NoError(t, <-written)
	require.NoError(t, <-closed)
	require.NoFileExists(t, path+"-wal", "nothing is left open")
	rows, err := openTest(t, path).Load(t.Context(), store.Keys{VMs: []string{"a"}})
	require.NoError(t, err)
	require.Len(t, rows.VMs, 1)
}

// BenchmarkCommit measures a commit and each of its rows: commands that are added or
// updated, with two changes each.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("add=%d", size), func(b *testing.B) {
			db, n := openNew(b), 0
			for b.Loop() {
				var w store.Writes
				for range size {
					n++
					c := command(fmt.Sprintf("command-%09d", n))
					c.VM = fmt.Sprintf("vm-%d", n%1000)
					w.Commands = append(w.Commands, c)
				}
				benchmarkCommit(b, db, w)
			}
			reportRows(b, 3*size)
		})
		b.Run(fmt.Sprintf("move=%d", size), func(b *testing.B) {
			db := openNew(b)
			var w store.Writes
			for i := range size {
				w.Commands = append(w.Commands, command(fmt.Sprintf("command-%d", i)))
				w.VMs = append(w.VMs, vm(fmt.Sprintf("vm-%d", i)))
			}
			for i, seq := range commit(b, db, w).Commands {
				w.Commands[i].Seq = seq
			}
			for b.Loop() {
				for i := range size {
					move(&w.Commands[i])
					w.VMs[i].Version++
				}
				benchmarkCommit(b, db, w)
			}
			reportRows(b, 4*size)
		})
	}
}

// move toggles a command between delivered and pending.
func move(c *store.CommandRow) {
	c.Version++
	c.DueAt = c.DueAt.Add(time.Second)
	if c.Queue = "out"; c.Version%2 == 0 {
		c.Queue = "plain"
	}
}

var benchmarkDoc = make([]byte, 500)

func benchmarkCommit(b *testing.B, db *DB, w store.Writes) {
	b.Helper()
	w.Changes = nil
	for i := range w.Commands {
		c := store.ChangeRow{At: t0, VM: w.Commands[i].VM, Kind: "command", Doc: benchmarkDoc}
		w.Commands[i].Doc = benchmarkDoc
		w.Changes = append(w.Changes, c, c)
	}
	for i := range w.VMs {
		w.VMs[i].Doc = benchmarkDoc
	}
	if _, err := db.Commit(b.Context(), w); err != nil {
		b.Fatal(err)
	}
}

func reportRows(b *testing.B, rows int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
}

// BenchmarkLoad measures loading a VM with its queues.
func BenchmarkLoad(b *testing.B) {
	db := openNew(b)
	var w store.Writes
	for i := range 1000 {
		c := command(fmt.Sprintf("command-%d", i))
		c.VM = fmt.Sprintf("vm-%d", i)
		w.VMs, w.Commands = append(w.VMs, vm(c.VM)), append(w.Commands, c)
	}
	commit(b, db, w)
	for b.Loop() {
		rows, err := db.Load(b.Context(), store.Keys{
			VMs: []string{"vm-500"}, Queues: []string{"out", "token", "plain"}, Depth: 2,
		})
		if err != nil || len(rows.VMs) != 1 || len(rows.Commands) != 1 {
			b.Fatal(rows, err)
		}
	}
}
