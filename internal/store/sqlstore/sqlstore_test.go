package sqlstore_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlstore"
	"github.com/mig-controller/mig-controller/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSQLite runs the suite of every backend on files.
func TestSQLite(t *testing.T) {
	t.Parallel()
	var paths sync.Map // store.Store → its file
	open := func(t *testing.T, path string) store.Store {
		t.Helper()
		db, err := sqlstore.OpenSQLite(t.Context(), path, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		paths.Store(db, path)
		return db
	}
	storetest.Run(t, storetest.Backend{
		New: func(t *testing.T) store.Store {
			t.Helper()
			return open(t, filepath.Join(t.TempDir(), "controller.db"))
		},
		// The files as they are at this moment, copied away from under the open
		// database, are what a kill leaves.
		Crash: func(t *testing.T, old store.Store) store.Store {
			t.Helper()
			stored, _ := paths.Load(old)
			path, ok := stored.(string)
			require.True(t, ok)
			dir := t.TempDir()
			for _, suffix := range []string{"", "-wal"} {
				b, err := os.ReadFile(path + suffix)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, "copy.db"+suffix), b, 0o600))
			}
			require.NoError(t, old.Close())
			return open(t, filepath.Join(dir, "copy.db"))
		},
	})
}
