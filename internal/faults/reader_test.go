//go:build faults

package faults

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Another program reads the database in a transaction that it does not end. Commands are
// accepted anyway, while the write-ahead log grows, and a warning has the time since the
// last checkpoint. When the transaction ends, the log is truncated.
func testBlockedReader(t *testing.T) {
	c := startController(t)
	c.connectRegistered(t, "vm-1").beatEvery(t, 500*time.Millisecond)
	tx, err := c.openDatabase(t).BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }() // a failed test has not ended it
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM commands").Scan(&n))

	const limit = 32 << 20
	log := c.database(t) + "-wal"
	for i := 0; sizeOf(t, log) <= limit+4<<20; i++ {
		c.send(t, "vm-2", fmt.Sprintf("large-%d", i), withLargeParams)
	}
	line := c.awaitLineFor(t, 70*time.Second, `"level":"WARN"`, "write-ahead log grows")
	require.Regexp(t, `"since_checkpoint":6\d{10}\b`, line, "a minute, in nanoseconds")
	require.Greater(t, sizeOf(t, log), int64(limit))
	require.NoError(t, tx.Rollback())
	await(t, func() bool { return sizeOf(t, log) <= limit }, "the log is not truncated")
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}
