package sqlstore

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
)

// Heartbeats that were stored in rows of their VMs, and without a chain, are found
// in theirs.
func TestMigrationKeepsHeartbeats(t *testing.T) {
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
			row[0], []byte(`{"status": "s`+row[1]+`"}`+"\n"+`{"as_before": true}`+"\n"))
		require.NoError(t, err)
	}
	require.NoError(t, pool.Close())

	db := openTest(t, path)
	beats, err := db.Heartbeats(t.Context(), "a", 5)
	require.NoError(t, err)
	var said []string
	for _, h := range beats {
		said = append(said, h.Status)
	}
	require.Equal(t, []string{"s4", "s4", "s3", "s3", "s1"}, said)
}
