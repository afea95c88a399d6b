package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FlushRows writes the rows that the engine's loop would write at this time.
func (e *Engine) FlushRows(ctx context.Context, now time.Time) error {
	return e.flushRows(ctx, now.Add(-2*rowEvery))
}

// CopyFile returns a copy of the current files of an SQLite database: what a kill of its
// process would leave.
func CopyFile(tb testing.TB, path string) string {
	tb.Helper()
	left := filepath.Join(tb.TempDir(), "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue // the database was closed
		}
		require.NoError(tb, err)
		require.NoError(tb, os.WriteFile(left+suffix, b, 0o600))
	}
	return left
}
