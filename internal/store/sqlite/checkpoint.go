package sqlite

import (
	"context"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// logLimit is the size to which the write-ahead log is truncated once all of it is in the
// database file. The log grows beyond it only while a reader needs its content.
const logLimit = 32 << 20

// checkpointEvery is how often the writer checks that the log is checkpointed, in addition
// to SQLite's own checkpoints, whose results are not reported.
const checkpointEvery = time.Minute

// eraseAfter is how long the log may contain what was erased from the database, unless a reader
// keeps it from being truncated.
const eraseAfter = 5 * time.Second

// checkpoints copies the log into the database file. Only the holder of the write
// connection may use it.
type checkpoints struct {
	every     time.Duration
	limit     int64
	looked    time.Time
	completed time.Time // the latest one that copied all of the log
	growing   bool      // a warning was logged, and still applies
	erase     bool      // the log contains what was erased from the database
}

func newCheckpoints() checkpoints {
	now := time.Now()
	// An earlier run may have been killed before it truncated the log.
	return checkpoints{every: checkpointEvery, limit: logLimit, looked: now, completed: now, erase: true}
}

// run makes a checkpoint when it is time for one, and truncates a log that is too large or must
// be erased. It logs a warning while a reader prevents that. It does not wait for readers.
func (k *checkpoints) run(ctx context.Context, c *conn, path string, log *slog.Logger) {
	now := time.Now()
	if now.Sub(k.looked) < k.interval() {
		return
	}
	k.looked = now
	mode, large := "PASSIVE", size(logOf(path)) > k.limit
	if large || k.erase {
		mode = "TRUNCATE"
	}
	done, err := c.checkpoint(ctx, mode)
	if done {
		k.completed = now
		k.erase = k.erase && mode != "TRUNCATE"
	}
	since := now.Sub(k.completed).Round(time.Second)
	switch {
	case err != nil:
		log.Warn("write-ahead log not checkpointed, trying again", logkey.Path, path, keySince, since, logkey.Error, err)
	case large && !done:
		k.growing = true
		log.Warn("write-ahead log grows: a program that reads the database keeps a transaction open",
			logkey.Path, path, logkey.Size, size(logOf(path)), keySince, since)
	case k.growing:
		k.growing = false
		log.Info("write-ahead log is checkpointed again", logkey.Path, path)
	}
}

func (k *checkpoints) interval() time.Duration {
	if k.erase {
		return min(k.every, eraseAfter)
	}
	return k.every
}

// checkpoint reports whether all of the log is in the database file, and with TRUNCATE also
// whether it was truncated.
func (c *conn) checkpoint(ctx context.Context, mode string) (done bool, err error) {
	if _, err := c.sql.ExecContext(ctx, "PRAGMA busy_timeout(0)"); err != nil {
		return false, err
	}
	var busy, frames, moved int
	err = c.sql.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &frames, &moved)
	if _, again := c.sql.ExecContext(ctx, "PRAGMA busy_timeout("+busyTimeout+")"); err == nil {
		err = again
	}
	return busy == 0 && frames == moved, err
}
