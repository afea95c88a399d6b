package sqlite

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A log or a journal that is not of the database is logged. What SQLite would delete is
// kept under another name.
func TestStrayFiles(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"-wal", "-journal"} {
		for name, write := range map[string]func(path string){
			"no database":       func(string) {},
			"an empty database": func(path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		} {
			path := filepath.Join(t.TempDir(), "controller.db")
			write(path)
			require.NoError(t, os.WriteFile(path+suffix, []byte("of another"), 0o600))
			db, log := openLogged(t, path)
			require.Equal(t, 1, log.count("level=WARN"), name)
			require.Equal(t, 1, log.count("renamed_to="), name)
			require.NoError(t, db.Close())
			aside, err := filepath.Glob(path + suffix + ".stray-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			content, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			require.Equal(t, "of another", string(content))
		}
	}
}

// A database with a write-ahead log has no journal.
func TestStrayJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, path).Close())
	require.NoError(t, os.WriteFile(path+"-journal", []byte("of another"), 0o600))
	_, log := openLogged(t, path)
	require.Equal(t, 1, log.count("level=WARN"))
	require.Equal(t, 1, log.count("no rollback journal"))
}

// A log that was there before the database is not of it.
func TestStrayLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, os.WriteFile(path+"-wal", []byte("of another"), 0o600))
	backup := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, backup).Close())
	require.NoError(t, os.Rename(backup, path))
	older := 1
	if bornAfter(path, path+"-wal") == 0 { // this system does not record when a file was made
		older = 0
	}
	for within, warnings := range map[time.Duration]int{0: older, copiedWithin: 0} {
		text := new(logs)
		s := stray{path: path + "-wal", within: within, log: slog.New(slog.NewTextHandler(text, nil))}
		require.NoError(t, s.check(path, "-wal"))
		require.Equal(t, warnings, text.count("older than the database"))
	}
}

// Beside a symbolic link to a database there is nothing of it.
func TestStrayBesideLink(t *testing.T) {
	t.Parallel()
	target, link := filepath.Join(t.TempDir(), "target.db"), filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, target).Close())
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.WriteFile(link+"-wal", []byte("of another"), 0o600))
	_, log := openLogged(t, link)
	require.Equal(t, 1, log.count("level=WARN"))
	require.Equal(t, 1, log.count(link+"-wal"))
}

// What a killed process leaves is no reason for a warning.
func TestOwnLogIsNotStray(t *testing.T) {
	t.Parallel()
	path, copied := filepath.Join(t.TempDir(), "controller.db"), filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	require.NoError(t, db.Check(t.Context()))
	for _, suffix := range []string{"-wal", ""} { // the log first
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied+suffix, content, 0o600))
	}
	_, log := openLogged(t, copied)
	require.Zero(t, log.count("level=WARN"))
}
