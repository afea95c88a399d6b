package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Once a file of the database is removed or replaced, every call fails, and the error and
// the log say why. When the file is back, everything continues.
func TestRemovedFiles(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"database": "controller.db", "log": "controller.db-wal", "index": "controller.db-shm", "directory": ".",
	} {
		for _, replaced := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "state")
			db, log := openLogged(t, filepath.Join(dir, "controller.db"))
			path := filepath.Join(dir, file)
			away := filepath.Join(t.TempDir(), "away")
			require.NoError(t, os.Rename(path, away))
			if replaced && file != "." {
				require.NoError(t, os.WriteFile(path, []byte("another"), 0o600))
			}
			for method, call := range everyMethod(db) {
				err := call(t.Context())
				require.ErrorIs(t, err, store.ErrRemoved, "%s: %s", name, method)
				require.ErrorContains(t, err, dir)
			}
			require.Equal(t, 1, log.count("database cannot be written"))

			require.NoError(t, os.Rename(away, path))
			require.NoError(t, db.Check(t.Context()), name)
			vms, _, err := db.VMs(t.Context(), store.VMQuery{}, 10)
			require.NoError(t, err)
			require.Empty(t, vms)
		}
	}
}

// A fault that comes and goes with each write is logged a few times per minute.
func TestFlappingFaultIsLoggedSomeTimes(t *testing.T) {
	t.Parallel()
	db, log := openLogged(t, filepath.Join(t.TempDir(), "controller.db"))
	away := db.path + ".away"
	for range 3 * loglimit.Lines {
		require.NoError(t, os.Rename(db.path, away))
		require.Error(t, db.Check(t.Context()))
		require.NoError(t, os.Rename(away, db.path))
		require.NoError(t, db.Check(t.Context()))
	}
	require.Equal(t, loglimit.Lines, log.count("database cannot be written"))
	require.Equal(t, loglimit.Lines, log.count("database can be written again"))
}

// A commit during which the file is removed does not succeed.
func TestRemovedDuringCommit(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	err := db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
		require.NoError(t, os.Remove(db.path))
		_, err := c.commit(ctx, store.Writes{VMs: []store.VMRow{vm("a")}})
		return 0, err
	})
	require.ErrorIs(t, err, store.ErrRemoved)
}
