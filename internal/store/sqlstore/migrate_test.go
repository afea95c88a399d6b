package sqlstore

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
)

// Heartbeats that were stored before they were chained are found by their chain.
func TestMigrationChainsHeartbeats(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	pool, err := openPool(path, 1, "")
	require.NoError(t, err)
	dir, err := fs.Sub(migrations, "migrations")
	require.NoError(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, pool, dir)
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), 1)
	require.NoError(t, err)
	for _, vm := range []string{"a", "b"} {
		_, err = pool.ExecContext(t.Context(), `INSERT INTO vms (vm_id, pool_id, org_id, status, connected, last_seen_at, doc)
			VALUES (?, '', '', '', 0, 0, '{}')`, vm)
		require.NoError(t, err)
	}
	for _, row := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"a", "4"}} {
		_, err = pool.ExecContext(t.Context(), `INSERT INTO heartbeats (vm_id, received_at, docs) VALUES (?, 0, ?)`,
			row[0], `{"status": "s`+row[1]+`"}`)
		require.NoError(t, err)
	}
	require.NoError(t, pool.Close())

	db := openTest(t, path)
	beats, err := db.Heartbeats(t.Context(), "a", 2)
	require.NoError(t, err)
	require.Len(t, beats, 2)
	require.Equal(t, "s4", beats[0].Status)
	require.Equal(t, "s3", beats[1].Status)
}
