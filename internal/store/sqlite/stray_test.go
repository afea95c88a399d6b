package sqlite

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// A log or a journal that does not belong to the database is logged. A file that SQLite
// would delete is renamed.
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

// A database in WAL mode has no journal.
func TestStrayJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, path).Close())
	require.NoError(t, os.WriteFile(path+"-journal", []byte("of another"), 0o600))
	_, log := openLogged(t, path)
	require.Equal(t, 1, log.count("level=WARN"))
	require.Equal(t, 1, log.count("no rollback journal"))
}

// A log older than the database does not belong to it.
func TestStrayLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, os.WriteFile(path+"-wal", []byte("of another"), 0o600))
	backup := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, backup).Close())
	require.NoError(t, os.Rename(backup, path))
	older := 1
	if bornAfter(path, path+"-wal") == 0 { // this system does not record creation times
		older = 0
	}
	for within, warnings := range map[time.Duration]int{0: older, copiedWithin: 0} {
		text := new(logs)
		s := stray{path: path + "-wal", within: within, log: slog.New(slog.NewTextHandler(text, nil))}
		require.NoError(t, s.check(path, "-wal"))
		require.Equal(t, warnings, text.count("older than the database"))
	}
}

// Files next to a symbolic link do not belong to the database.
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

// The files that a killed process leaves cause no warning.
func TestOwnLogIsNotStray(t *testing.T) {
	t.Parallel()
	path, copied := filepath.Join(t.TempDir(), "controller.db"), filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	require.NoError(t, db.Check(t.Context()))
	for _, suffix := range []string{"-wal", ""} { // first the log
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied+suffix, content, 0o600))
	}
	_, log := openLogged(t, copied)
	require.Zero(t, log.count("level=WARN"))
}

// A log that was written for other content of the database is rejected before SQLite
// applies it: a backup was copied over the database of a killed process. Nothing is
// changed, and without the log the backup is opened.
func TestForeignLog(t *testing.T) {
	t.Parallel()
	path, dir := filepath.Join(t.TempDir(), "controller.db"), t.TempDir()
	db := openTest(t, path)
	addVMs(t, db, "a", 100)
	backUp(t, db, filepath.Join(dir, "earlier run"))
	require.NoError(t, db.Close())
	db = openTest(t, path)
	addVMs(t, db, "b", 100)
	backUp(t, db, filepath.Join(dir, "same run"))
	addVMs(t, db, "c", 2000)
	backUp(t, db, filepath.Join(dir, "begin of the log"))
	addVMs(t, db, "d", 10)

	for backup, vms := range map[string]int{"earlier run": 100, "same run": 200, "begin of the log": 2210} {
		restored := filepath.Join(t.TempDir(), "controller.db")
		copyFile(t, path+"-wal", restored+"-wal")
		copyFile(t, filepath.Join(dir, backup), restored)
		if vms < 2210 { // otherwise the log belongs to the database
			_, err := Open(t.Context(), restored, slog.New(slog.DiscardHandler), nil)
			require.ErrorIs(t, err, errForeignLog, backup)
			require.ErrorContains(t, err, restored+"-wal")
			require.Equal(t, readFile(t, filepath.Join(dir, backup)), readFile(t, restored))
			require.Equal(t, readFile(t, path+"-wal"), readFile(t, restored+"-wal"))
			require.NoError(t, os.Remove(restored+"-wal"))
		}
		requireVMs(t, openTest(t, restored), vms)
	}
}

// A log that cannot be read may belong to the database: no message says to move it away.
func TestUnreadableLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, openTest(t, path).Close())
	require.NoError(t, os.Mkdir(path+"-wal", 0o700))
	_, err := Open(t.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, path+"-wal")
	require.NotErrorIs(t, err, errForeignLog)
}

// A log matches the version at which it was started and those that it contains.
func TestLogFor(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addVMs(t, db, "a", 1)
	backUp(t, db, filepath.Join(t.TempDir(), "backup")) // the next commit restarts the log
	header, err := readHeader(db.path)
	require.NoError(t, err)
	begun := versionIn(header[:])
	addVMs(t, db, "b", 200)
	backUp(t, db, filepath.Join(t.TempDir(), "backup"))
	header, err = readHeader(db.path)
	require.NoError(t, err)
	last := versionIn(header[:])
	require.Greater(t, last.pages, begun.pages)
	for v, fits := range map[version]bool{
		begun: true, last: true,
		{begun.counter - 1, begun.pages}: true, // the first change of this connection to the first page is in the log
		{begun.counter - 2, begun.pages}: false,
		{begun.counter + 1, begun.pages}: false,
		{begun.counter, begun.pages - 1}: false,
		{last.counter, last.pages + 1}:   false,
	} {
		own, err := logFor(logOf(db.path), v)
		require.NoError(t, err)
		require.Equal(t, fits, own, v)
	}
}

// The files of a killed process are accepted at any point: commits are distributed between
// the log and the database in varying ways.
func TestOwnLogIsAccepted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	for run := range 2 {
		db := openTest(t, path)
		for i := range 6 {
			addVMs(t, db, fmt.Sprintf("%d-%d", run, i), i*20)
			killed := filepath.Join(t.TempDir(), "controller.db")
			if i%5 == 4 {
				backUp(t, db, killed)
			}
			copyFile(t, path, killed)
			copyFile(t, path+"-wal", killed+"-wal")
			other, log := openLogged(t, killed)
			require.Zero(t, log.count("level=WARN"))
			require.NoError(t, other.Close())
		}
		require.NoError(t, db.Close())
	}
}

// addVMs commits VMs one by one.
func addVMs(t *testing.T, db *DB, prefix string, n int) {
	t.Helper()
	for i := range n {
		commit(t, db, store.Writes{VMs: []store.VMRow{vm(fmt.Sprintf("%s-%d", prefix, i))}})
	}
}

// requireVMs requires that a database is consistent and has this many VMs.
func requireVMs(t *testing.T, db *DB, n int) {
	t.Helper()
	var vms int
	var whole string
	require.NoError(t, db.read(t.Context(), func(c *conn) error {
		return c.sql.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM vms), integrity_check FROM pragma_integrity_check").Scan(&vms, &whole)
	}))
	require.Equal(t, "ok", whole)
	require.Equal(t, n, vms)
}

// backUp makes a complete copy, as after a stop.
func backUp(t *testing.T, db *DB, to string) {
	t.Helper()
	c := <-db.conns.writer
	defer func() { db.conns.writer <- c }()
	done, err := c.checkpoint(t.Context(), "PASSIVE")
	require.NoError(t, err)
	require.True(t, done)
	copyFile(t, db.path, to)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, os.WriteFile(to, readFile(t, from), 0o600))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}
