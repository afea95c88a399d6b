package sqlite

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The metrics show the sizes of the files, and the age of the oldest read of each kind.
func TestMetrics(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	metrics := prometheus.NewRegistry()
	db, err := Open(t.Context(), path, slog.New(slog.DiscardHandler), metrics)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	values := func() map[string]float64 { return testkit.Metrics(t, metrics) }
	before := values()
	require.Zero(t, before["database_oldest_read_seconds"])
	require.Positive(t, before["database_free_space_bytes"])
	large := vm("a")
	large.Doc = make([]byte, 1<<20)
	commit(t, db, store.Writes{VMs: []store.VMRow{large}})
	after := values()
	require.GreaterOrEqual(t, after["database_wal_bytes"]-before["database_wal_bytes"], 1e6)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.InDelta(t, info.Size(), after["database_bytes"], 0)

	for name, read := range map[string]func(func(*conn) error) error{
		"list": func(fn func(*conn) error) error { return db.read(t.Context(), fn) },
		"load": func(fn func(*conn) error) error { return db.load(t.Context(), fn) },
	} {
		require.NoError(t, read(func(*conn) error {
			require.Eventually(t, func() bool { return values()["database_oldest_read_seconds"] > .01 }, patience, time.Millisecond, name)
			require.NoError(t, db.read(t.Context(), func(*conn) error { return nil }))
			require.Greater(t, values()["database_oldest_read_seconds"], .01, "a shorter one does not matter")
			return nil
		}))
		require.Zero(t, values()["database_oldest_read_seconds"])
	}
}
