package sqlite

import (
	"context"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// logLimit is the size to which the write-ahead log is cut once all of it is in the
// database file. It is larger only while a reader needs what it holds.
const logLimit = 32 << 20

// checkpointEvery is how often the writer looks whether the log is written back, beside
// SQLite's own checkpoints, which do not say how they ended.
const checkpointEvery = time.Minute

// checkpoints write the log back into the database file. Only the holder of the
// connection that writes may use it.
type checkpoints struct {
	every     time.Duration
	limit     int64
	looked    time.Time
	completed time.Time // the latest one that wrote back all of the log
	growing   bool      // the latest warning still holds
}

func newCheckpoints() checkpoints {
	now := time.Now()
	return checkpoints{every: checkpointEvery, limit: logLimit, looked: now, completed: now}
}

// run makes a checkpoint when it is time for one, and cuts a log that is too large. It
// logs a warning while a reader prevents that. It waits for no reader.
func (k *checkpoints) run(ctx context.Context, c *conn, path string, log *slog.Logger) {
	now := time.Now()
	if now.Sub(k.looked) < k.every {
		return
	}
	k.looked = now
	mode, large := "PASSIVE", size(logOf(path)) > k.limit
	if large {
		mode = "TRUNCATE"
	}
	done, err := c.checkpoint(ctx, mode)
	if done {
		k.completed = now
	}
	since := now.Sub(k.completed).Round(time.Second)
	switch {
	case err != nil:
		log.Warn("write-ahead log not written back, trying again", logkey.Path, path, keySince, since, logkey.Error, err)
	case large && !done:
		k.growing = true
		log.Warn("write-ahead log grows: a program that reads the database keeps a transaction open",
			logkey.Path, path, logkey.Size, size(logOf(path)), keySince, since)
	case k.growing:
		k.growing = false
		log.Info("write-ahead log is written back again", logkey.Path, path)
	}
}

// checkpoint reports whether all of the log is in the database file, and with TRUNCATE
// also whether it was cut.
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
