package powerloss_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store/powerloss"
)

const (
	full       = "FULL"
	failedSync = "disk I/O error (1034)" // SQLITE_IOERR_FSYNC
)

// With synchronous=FULL every acknowledged commit survives a power loss at any moment, and
// the database is consistent.
func TestAnsweredCommitsSurvive(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"never checkpointed":    {cache: -2000},
		"often checkpointed":    {cache: -2000, checkpoint: 20},
		"spilled before commit": {cache: 5, checkpoint: 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.synchronous = full
			b := newBank(t, dice(t), o)
			b.commits(40)
			require.Empty(t, b.powerLosses(0, 100, powerloss.Some))
		})
	}
}

// The same holds during checkpoints of all kinds by another connection, while readers keep
// the WAL from being reset, and for a database that existed before.
func TestAnsweredCommitsSurviveCheckpointsByOthers(t *testing.T) {
	t.Parallel()
	first := newBank(t, dice(t), options{synchronous: full, cache: -2000})
	first.commits(5)
	dir := t.TempDir()
	b := first.after(first.v.Snapshot(dir, powerloss.None), powerloss.Register(t), options{synchronous: full, cache: 10})
	other := open(t, b.path, options{vfs: b.v.Name(), synchronous: full, cache: 10})
	for range 30 {
		tx, err := other.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		var n int
		require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT n FROM total").Scan(&n))
		b.commits(1)
		if b.dice.IntN(2) == 0 {
			require.NoError(t, tx.Rollback())
		}
		mode := []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[b.dice.IntN(4)]
		if b.dice.IntN(2) == 0 {
			mode = "PASSIVE"
			b.exec("PRAGMA wal_checkpoint(PASSIVE)") // with the reader, if it is still open
		}
		_ = tx.Rollback() // it may have ended
		_, err = other.ExecContext(t.Context(), fmt.Sprintf("PRAGMA wal_checkpoint(%s)", mode))
		require.NoError(t, err)
	}
	require.Empty(t, b.powerLosses(0, 100, powerloss.Some))
}

// Commits that are acknowledged after syncs failed survive as well, whether the sync of a
// commit or of a checkpoint failed, for a process that keeps its connections.
func TestAnsweredCommitsSurviveFailedSyncs(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"often checkpointed":    {cache: -2000, checkpoint: 20},
		"spilled before commit": {cache: 5, checkpoint: 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.synchronous = full
			b := newBank(t, dice(t), o)
			failures := 0
			for len(b.answered) < 30 {
				if b.dice.IntN(3) == 0 {
					b.v.FailSyncs(powerloss.WAL, 1+b.dice.IntN(2), powerloss.Some(b.dice))
				}
				if b.dice.IntN(3) == 0 {
					b.v.FailSyncs(powerloss.Database, 1, powerloss.Some(b.dice))
				}
				if err := b.commit(); err != nil {
					require.ErrorContains(t, err, failedSync)
					failures++
				}
			}
			require.NotZero(t, failures)
			require.Empty(t, b.powerLosses(0, 100, powerloss.Some))
		})
	}
}

// The tests above can fail: with less than FULL they find lost commits.
func TestLossIsFound(t *testing.T) {
	t.Parallel()
	for _, synchronous := range []string{"NORMAL", "OFF"} {
		t.Run(synchronous, func(t *testing.T) {
			t.Parallel()
			b := newBank(t, dice(t), options{synchronous: synchronous, cache: -2000, checkpoint: 20})
			b.commits(40)
			wrong := b.powerLosses(b.created, 50, powerloss.Some)
			require.NotEmpty(t, wrong)
			if synchronous == "NORMAL" {
				for moment, err := range wrong {
					require.ErrorContains(t, err, "lost", moment)
				}
			}
		})
	}
}
