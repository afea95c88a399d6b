package sqlite

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A database can be opened only once at a time, under any path, and a failed attempt does
// no harm.
func TestDatabaseIsOpenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "controller.db")
	db := openTest(t, path)
	require.NoError(t, db.Check(t.Context()))

	directory := filepath.Join(t.TempDir(), "directory")
	require.NoError(t, os.Symlink(dir, directory))
	symbolic, hard := filepath.Join(t.TempDir(), "symbolic.db"), filepath.Join(dir, "hard.db")
	require.NoError(t, os.Symlink(path, symbolic))
	require.NoError(t, os.Link(path, hard))
	paths := []string{path, filepath.Join(dir, ".", "x", "..", "controller.db"), filepath.Join(directory, "controller.db"), symbolic, hard}
	for _, other := range paths {
		_, err := Open(t.Context(), other, slog.New(slog.DiscardHandler), nil)
		require.ErrorIs(t, err, ErrInUse, other)
		require.ErrorContains(t, err, other)
		require.NoFileExists(t, hard+"-wal")
		require.NoError(t, db.Check(t.Context()))
	}
	require.NoError(t, db.Close())
	for _, other := range paths {
		require.NoError(t, openTest(t, other).Close(), other)
	}
}

// The lock is held until SQLite has closed the database.
func TestLockOutlastsSQLite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	done, err := db.use()
	require.NoError(t, err)
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	require.Eventually(t, func() bool { return db.Check(t.Context()) != nil }, patience, 1)
	_, err = Open(t.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.ErrorIs(t, err, ErrInUse)
	done()
	require.NoError(t, <-closed)
	require.NoError(t, openTest(t, path).Close())
}
