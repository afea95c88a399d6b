package sqlstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// testLog is the log of a database whose syncs a test has in its hand.
type testLog struct {
	logFile
	sync func() error
}

func (l testLog) Sync() error { return l.sync() }

// onSync has fn called for each sync from now on. It is given the one there was.
func onSync(db *DB, fn func(sync func() error) error) {
	before := db.writer.wal
	db.writer.wal = testLog{before, func() error { return fn(before.Sync) }} // the next operation has it seen
}

// countSyncs counts how often the log is synced from now on.
func countSyncs(db *DB) *int {
	n := new(int)
	onSync(db, func(sync func() error) error { *n++; return sync() })
	return n
}

// TestDurability defends what makes a commit survive power loss, which no test in
// a process can show: the log is synced before the answer, and by SQLite before
// and after it is moved to the database file.
func TestDurability(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	require.NoError(t, db.update(t.Context(), func(tx *tx) error {
		var mode string
		var sync int
		if err := tx.w.conn.QueryRowContext(unstoppable, "PRAGMA journal_mode").Scan(&mode); err != nil {
			return err
		}
		err := tx.w.conn.QueryRowContext(unstoppable, "PRAGMA synchronous").Scan(&sync)
		require.Equal(t, "wal", mode)
		require.Equal(t, 1, sync, "NORMAL")
		return err
	}))
	var log string
	require.NoError(t, db.writer.conn.QueryRowContext(t.Context(), "SELECT file || '-wal' FROM pragma_database_list").Scan(&log))
	synced, err := db.wal.Stat()
	require.NoError(t, err)
	written, err := os.Stat(log)
	require.NoError(t, err)
	require.True(t, os.SameFile(synced, written))

	early, durable := make(chan []fleet.Change, 1), make(chan []fleet.Change, 1)
	db.ListenEarly(func(c []fleet.Change) { early <- c })
	db.Listen(func(c []fleet.Change) { durable <- c })
	release := make(chan struct{})
	onSync(db, func(sync func() error) error { <-release; return sync() })
	c, answered := drain(t, "c"), make(chan error, 1)
	go func() {
		_, err := db.Enqueue(t.Context(), c, time.Now)
		answered <- err
	}()
	require.EqualValues(t, "c", (<-early)[0].Command.ID)
	require.Empty(t, durable)
	require.Empty(t, answered)
	close(release)
	require.NoError(t, <-answered)
	require.EqualValues(t, "c", (<-durable)[0].Command.ID)
}

// While syncs fail nothing is answered and nothing new is taken. Then the log is
// written again: what the first sync has left out is not lost with the power.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	told := make(chan []fleet.Change, 9)
	db.Listen(func(c []fleet.Change) { told <- c })
	_, err := db.Enqueue(t.Context(), drain(t, "first"), time.Now)
	require.NoError(t, err)
	require.EqualValues(t, "first", (<-told)[0].Command.ID) // which comes after the answer
	failed, repaired := make(chan struct{}), make(chan struct{})
	var torn []byte // the log as the first sync has left it on the disk
	syncs := 0
	onSync(db, func(sync func() error) error {
		syncs++
		if syncs == 1 {
			torn, err = os.ReadFile(path + "-wal")
			close(failed)
			return errors.New("the disk is gone")
		}
		<-repaired
		return sync()
	})
	written := 0
	db.writer.wal = watchedLog{db.writer.wal, &written}
	second, answered := drain(t, "second"), make(chan error, 1)
	go func() {
		_, err := db.Enqueue(t.Context(), second, time.Now)
		answered <- err
	}()
	<-failed
	require.NoError(t, err)
	require.Eventually(t, db.writer.stuck.Load, 5*time.Second, time.Millisecond)
	_, err = db.Enqueue(t.Context(), drain(t, "third"), time.Now)
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.Empty(t, told)
	require.Empty(t, answered)
	last, err := db.LastChange(t.Context())
	require.NoError(t, err)
	changes, err := db.Changes(t.Context(), store.ChangeFilter{}, 0, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, last, "who follows sees nothing that a loss of power may undo")
	require.Len(t, changes, 1)

	close(repaired)
	require.NoError(t, <-answered)
	require.EqualValues(t, "second", (<-told)[0].Command.ID)
	require.Equal(t, len(torn), written, "all of the log")
	log, err := os.ReadFile(path + "-wal")
	require.NoError(t, err)
	require.Equal(t, torn, log, "as it was")
	_, err = db.Enqueue(t.Context(), drain(t, "third"), time.Now)
	require.NoError(t, err)
}

// watchedLog counts the bytes that are written to the log.
type watchedLog struct {
	logFile
	written *int
}

func (l watchedLog) WriteAt(p []byte, off int64) (int, error) {
	*l.written += len(p)
	return l.logFile.WriteAt(p, off)
}

// A store that is closed while syncs fail gives up, and does not say that what it
// has committed was done: not even when another sync knows of nothing to be done.
func TestCloseWhileSyncsFail(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	db.Listen(func([]fleet.Change) { t.Error("told") })
	onSync(db, func(func() error) error { return errors.New("the disk is gone") })
	written := 0
	db.writer.wal = watchedLog{db.writer.wal, &written}
	c, answered := drain(t, "c"), make(chan error, 1)
	go func() {
		_, err := db.Enqueue(t.Context(), c, time.Now)
		answered <- err
	}()
	require.Eventually(t, db.writer.stuck.Load, 5*time.Second, time.Millisecond)
	close(db.writer.stopping)
	require.ErrorIs(t, <-answered, fleet.ErrUnavailable)
	<-db.writer.done
	before := written
	require.Error(t, db.writer.secure())
	require.Greater(t, written, before, "all is written again")
	db.writer.stopOnce.Do(func() {}) // it has stopped
}

// The log that is synced is the one that SQLite writes, also through a link.
func TestLinkedDatabase(t *testing.T) {
	t.Parallel()
	target := filepath.Join(t.TempDir(), "target.db")
	link := filepath.Join(t.TempDir(), "controller.db")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.WriteFile(link+"-wal", nil, 0o600)) // of a database that was here
	db := openTest(t, link)
	synced, err := db.wal.Stat()
	require.NoError(t, err)
	written, err := os.Stat(target + "-wal")
	require.NoError(t, err)
	require.True(t, os.SameFile(synced, written))
}
