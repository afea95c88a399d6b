package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// grow commits a mebibyte at a time until the log is larger than this.
func grow(t *testing.T, db *DB, past int64) {
	t.Helper()
	for size(logOf(db.path)) <= past {
		commit(t, db, store.Writes{Events: []store.EventRow{{VM: "a", ReceivedAt: t0, Doc: make([]byte, 1<<20)}}})
	}
}

// reading begins a read transaction, as another program would, and returns a function that
// ends it.
func reading(t *testing.T, db *DB) (end func()) {
	t.Helper()
	pool, err := openPool(db.path, "", 1, "")
	require.NoError(t, err)
	tx, err := pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM vms").Scan(&n))
	return func() {
		require.NoError(t, tx.Rollback())
		require.NoError(t, pool.Close())
	}
}

// While a reader keeps a transaction open, the log grows, which is logged with the time
// since the last checkpoint, and commits continue. Once it ends, the log is truncated.
func TestLogThatGrows(t *testing.T) {
	t.Parallel()
	db, log := openLogged(t, filepath.Join(t.TempDir(), "controller.db"))
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a")}})
	db.checkpoints.limit = 1 << 20
	db.checkpoints.every = 0
	end := reading(t, db)
	grow(t, db, 2<<20)
	db.checkpoints.completed = time.Now().Add(-time.Hour)
	begun := time.Now()
	require.NoError(t, db.Check(t.Context()))
	require.Less(t, time.Since(begun), 4*time.Second, "it does not wait for readers")
	require.NotZero(t, log.count("write-ahead log grows"))
	require.NotZero(t, log.count("since_checkpoint=1h"))
	require.Zero(t, log.count("checkpointed again"))

	end()
	require.NoError(t, db.Check(t.Context()))
	require.Zero(t, size(logOf(db.path)))
	require.WithinDuration(t, time.Now(), db.checkpoints.completed, time.Minute)
	warned := log.count("write-ahead log grows")
	require.NoError(t, db.Check(t.Context()))
	require.Equal(t, 1, log.count("checkpointed again"))
	require.Equal(t, warned, log.count("write-ahead log grows"))
}

// A checkpoint that a reader keeps from completing is not complete, even while the log is
// small.
func TestCheckpointBehindAReader(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a")}})
	db.checkpoints.every = 0
	end := reading(t, db)
	defer end()
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("b")}})
	before := time.Now().Add(-time.Hour)
	db.checkpoints.completed = before
	require.NoError(t, db.Check(t.Context()))
	require.Equal(t, before, db.checkpoints.completed)
}

// A log that a large transaction or a reader has enlarged is truncated by later commits,
// without a checkpoint of ours.
func TestLogIsCut(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	end := reading(t, db)
	grow(t, db, logLimit+8<<20)
	end()
	for range 3 {
		commit(t, db, store.Writes{VMs: []store.VMRow{vm(time.Now().String())}})
	}
	require.LessOrEqual(t, size(logOf(db.path)), int64(logLimit))
}
