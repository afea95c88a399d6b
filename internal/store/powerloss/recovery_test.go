package powerloss_test

import (
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store/powerloss"
)

// The tests of this file show what is safe after a commit failed because the WAL could not
// be synced. Its frames are in the page cache, complete and valid, but not on the disk, and
// no later sync writes them.

var careful = options{synchronous: full, cache: -2000}

// bankWithFailedCommit returns a bank with a checkpointed part, a commit in the WAL, and a
// failed commit that exists only in the page cache. The disk works again.
func bankWithFailedCommit(t *testing.T) *bank {
	t.Helper()
	b := newBank(t, dice(t), careful)
	b.commits(15)
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	b.commits(1)
	b.big = true
	b.v.FailSyncs(powerloss.WAL, 1, powerloss.None)
	require.ErrorContains(t, b.commit(), failedSync)
	b.big = false
	require.Equal(t, len(b.answered), b.total(), "the process does not see the failed commit")
	return b
}

func (b *bank) total() int {
	b.t.Helper()
	var n int
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT n FROM total").Scan(&n))
	return n
}

// killed returns the bank after its process was killed and restarted.
func (b *bank) killed() *bank {
	b.t.Helper()
	db, v := b.v.Kill(b.t.TempDir())
	return b.after(db, v, careful)
}

// requireSomeLost requires that some power loss after this moment loses an acknowledged
// commit, and tries until one does.
func (b *bank) requireSomeLost(after int) {
	b.t.Helper()
	for range 50 {
		for _, err := range b.powerLosses(after, 20, powerloss.Some) {
			if strings.HasPrefix(err.Error(), "lost") {
				return
			}
		}
	}
	require.Fail(b.t, "no power loss lost anything")
}

// requireSafe requires that the failed commit is gone and later ones survive.
func (b *bank) requireSafe() {
	b.t.Helper()
	require.Equal(b.t, len(b.answered), b.total())
	b.commits(3)
	require.Empty(b.t, b.powerLosses(0, 30, powerloss.Some))
}

// requireLost requires that the failed commit is back and later ones are lost.
func (b *bank) requireLost() {
	b.t.Helper()
	require.Equal(b.t, len(b.answered)+1, b.total(), "the failed commit is back")
	b.commits(3)
	b.requireSomeLost(b.answered[len(b.answered)-3].moment)
}

// It is safe to continue with the connections of the same process: the index of the WAL
// does not contain the failed commit, and the next one overwrites it. From then on a kill
// is safe as well.
func TestGoingOnIsSafe(t *testing.T) {
	t.Parallel()
	b := bankWithFailedCommit(t)
	b.commits(1)
	next := b.killed()
	b.commits(3)
	require.Empty(t, b.powerLosses(0, 30, powerloss.Some))
	next.requireSafe()
}

// The index lives as long as any connection of the process: closing and reopening the one
// whose commit failed changes nothing.
func TestClosingOneOfTwoIsSafe(t *testing.T) {
	t.Parallel()
	b := bankWithFailedCommit(t)
	other := open(t, b.path, options{vfs: b.v.Name(), synchronous: full})
	require.NoError(t, other.PingContext(t.Context()))
	_, err := other.ExecContext(t.Context(), "SELECT n FROM total") // opens the WAL
	require.NoError(t, err)
	require.NoError(t, b.db.Close())
	next := b.after(b.path, b.v, careful)
	next.requireSafe()
}

// A failed sync of one connection loses what another has written, and the other's commit
// fails as well: the kernel reports the error to both.
func TestFailedSyncOfAnotherConnectionFailsTheCommit(t *testing.T) {
	t.Parallel()
	b := newBank(t, dice(t), options{synchronous: full, cache: 5})
	b.commits(3)
	other := open(t, b.path, options{vfs: b.v.Name(), synchronous: full})
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	before := b.v.Moment()
	_, err = tx.ExecContext(t.Context(), "INSERT INTO rows VALUES (4, 1, zeroblob(100000), '')")
	require.NoError(t, err)
	require.Greater(t, b.v.Moment(), before, "it writes before it commits")
	b.v.FailSyncs(powerloss.WAL, 1, powerloss.None)
	_, err = other.ExecContext(t.Context(), "PRAGMA wal_checkpoint(PASSIVE)")
	require.ErrorContains(t, err, failedSync)
	require.ErrorContains(t, tx.Commit(), failedSync)
	_ = tx.Rollback() // it has ended
	b.commits(3)
	require.Empty(t, b.powerLosses(0, 30, powerloss.Some))
}

// Truncating the WAL by a checkpoint, and a kill after it, are safe as well.
func TestTruncatingIsSafe(t *testing.T) {
	t.Parallel()
	b := bankWithFailedCommit(t)
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	require.Empty(t, b.powerLosses(0, 30, powerloss.Some))
	next := b.killed()
	next.requireSafe()
}

// Closing all connections and reopening is safe if the last close checkpoints, which
// deletes the WAL.
func TestClosingIsSafeIfItCheckpoints(t *testing.T) {
	t.Parallel()
	b := bankWithFailedCommit(t)
	require.NoError(t, b.db.Close())
	require.NoFileExists(t, b.path+"-wal")
	next := b.after(b.path, b.v, careful)
	next.requireSafe()
}

// If the checkpoint of the last close fails, no error is returned, the WAL stays, and the
// failed commit comes back. Commits acknowledged after that are lost.
func TestClosingThatFailsLosesLaterCommits(t *testing.T) {
	t.Parallel()
	for _, file := range []powerloss.File{powerloss.WAL, powerloss.Database} {
		t.Run("sync of x.db"+string(file), func(t *testing.T) {
			t.Parallel()
			b := bankWithFailedCommit(t)
			b.v.FailSyncs(file, 1, powerloss.None)
			require.NoError(t, b.db.Close())
			require.Zero(t, b.v.Failing(file))
			require.FileExists(t, b.path+"-wal")
			next := b.after(b.path, b.v, careful)
			next.requireLost()
		})
	}
}

// After a kill the failed commit comes back from the page cache. Later commits are written
// after it, where a power loss makes them unreachable: they are lost.
func TestKillLosesLaterCommits(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*bank){
		"at once":                    func(*bank) {},
		"after a passive checkpoint": func(b *bank) { b.exec("PRAGMA wal_checkpoint(PASSIVE)") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bankWithFailedCommit(t)
			before(b)
			next := b.killed()
			next.requireLost()
		})
	}
}

// An immediate checkpoint makes it worse: it writes to the database what the WAL on the
// disk does not contain. A power loss between it and the next commit corrupts the database.
func TestCheckpointAfterKillCorrupts(t *testing.T) {
	t.Parallel()
	for range 20 { // the pages of the failed commit are random
		next := bankWithFailedCommit(t).killed()
		require.Equal(t, len(next.answered)+1, next.total(), "the failed commit is back")
		next.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		dir, truncated := t.TempDir(), next.v.Moment()
		wrong := next.lost(next.v.Snapshot(dir, powerloss.None), truncated)
		next.commits(1)
		committed := next.v.Moment()
		next.commits(3)
		require.Empty(t, next.powerLosses(committed, 30, powerloss.Some))
		if wrong != nil {
			require.ErrorContains(t, wrong, "corrupt")
			return
		}
	}
	require.Fail(t, "no power loss corrupted the database")
}

// It is safe to rewrite the WAL in place and to sync it before SQLite opens the database:
// then everything that SQLite finds in it is on the disk.
func TestRewritingTheWALIsSafe(t *testing.T) {
	t.Parallel()
	next := bankWithFailedCommit(t).killedAndRewritten()
	require.Equal(t, len(next.answered)+1, next.total(), "the failed commit is back")
	next.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	next.commits(3)
	require.Empty(t, next.powerLosses(0, 30, powerloss.Some))
}

// This holds for processes that are killed at any time, whichever syncs failed before.
func TestRewritingTheWALIsAlwaysSafe(t *testing.T) {
	t.Parallel()
	b := newBank(t, dice(t), careful)
	for range 6 {
		b.v.FailSyncs(powerloss.WAL, b.dice.IntN(3), powerloss.Some(b.dice))
		for range b.dice.IntN(4) {
			_ = b.commit() // or not
		}
		b.v.FailSyncs(powerloss.Database, b.dice.IntN(2), powerloss.Some(b.dice))
		if b.dice.IntN(2) == 0 {
			_, _ = b.db.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)") // or not
		}
		b = b.killedAndRewritten()
		if b.dice.IntN(2) == 0 {
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		}
		b.commits(b.dice.IntN(3))
		require.Empty(t, b.powerLosses(0, 15, powerloss.Some))
	}
}

// killedAndRewritten is killed, but the next process first rewrites the WAL in place.
func (b *bank) killedAndRewritten() *bank {
	b.t.Helper()
	db, v := b.v.Kill(b.t.TempDir())
	if wal, err := v.OpenFile(powerloss.WAL); err == nil {
		content, err := io.ReadAll(io.NewSectionReader(wal, 0, math.MaxInt64))
		require.NoError(b.t, err)
		_, err = wal.WriteAt(content, 0)
		require.NoError(b.t, err)
		require.NoError(b.t, wal.Sync())
	}
	return b.after(db, v, careful)
}

// What a process reads after a kill may not be on the disk, even if no sync ever failed:
// its predecessor may have been killed between write and sync. A checkpoint makes it
// durable, and a power loss before that does no harm.
func TestWhatIsReadAfterKillIsNotDurable(t *testing.T) {
	t.Parallel()
	b := newBank(t, dice(t), careful)
	b.commits(15)
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	b.commits(1)
	b.exec("PRAGMA synchronous=OFF") // it is killed before it syncs
	b.commits(1)
	next := b.killed()
	require.Equal(t, len(next.answered), next.total())
	opened, dir := next.v.Moment(), t.TempDir()
	require.ErrorContains(t, next.lost(next.v.Snapshot(dir, powerloss.None), opened), "lost")
	next.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	require.NoError(t, next.lost(next.v.Snapshot(dir, powerloss.None), next.v.Moment()))
	next.answered = next.answered[:len(next.answered)-1]
	require.Empty(t, next.powerLosses(0, 30, powerloss.Some))
}
