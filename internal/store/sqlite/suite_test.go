package sqlite_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
	"github.com/mig-controller/mig-controller/internal/store/storetest"
)

// TestSuite runs the suite of every driver on files.
func TestSuite(t *testing.T) {
	t.Parallel()
	var paths sync.Map // store.Driver → its file
	type opener = func(context.Context, string, *slog.Logger, prometheus.Registerer) (*sqlite.DB, error)
	open := func(t *testing.T, by opener, path string) store.Driver {
		t.Helper()
		db, err := by(t.Context(), path, slog.New(slog.DiscardHandler), nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		paths.Store(db, path)
		return db
	}
	pathOf := func(t *testing.T, d store.Driver) string {
		t.Helper()
		stored, _ := paths.Load(d)
		path, ok := stored.(string)
		require.True(t, ok)
		return path
	}
	storetest.Run(t, storetest.Drivers{
		New: func(t *testing.T) store.Driver {
			t.Helper()
			return open(t, sqlite.Open, filepath.Join(t.TempDir(), "controller.db"))
		},
		// A copy of the files of the open database at this moment is what a kill leaves.
		Crash: func(t *testing.T, old store.Driver) store.Driver {
			t.Helper()
			dir := t.TempDir()
			for _, suffix := range []string{"", "-wal"} {
				b, err := os.ReadFile(pathOf(t, old) + suffix)
				if os.IsNotExist(err) && suffix != "" {
					continue // the database was closed
				}
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, "copy.db"+suffix), b, 0o600))
			}
			require.NoError(t, old.Close())
			return open(t, sqlite.Open, filepath.Join(dir, "copy.db"))
		},
		Shared: func(t *testing.T, d store.Driver) store.Driver {
			t.Helper()
			return open(t, sqlite.Join, pathOf(t, d))
		},
	})
}
