package sqlstore

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// openOld opens a new database at path with the schema of a version, and returns
// how to write to it.
func openOld(t *testing.T, path string, version int64) (exec func(query string, args ...any)) {
	t.Helper()
	pool, err := openPool(path, 1, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	dir, err := fs.Sub(migrations, "migrations")
	require.NoError(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, pool, dir)
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), version)
	require.NoError(t, err)
	return func(query string, args ...any) {
		_, err := pool.ExecContext(t.Context(), query, args...)
		require.NoError(t, err)
	}
}

// Heartbeats that were stored in rows of their VMs, and without a chain, are found
// in theirs.
func TestMigrationKeepsHeartbeats(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	exec := openOld(t, path, 1)
	for _, vm := range []string{"a", "b"} {
		exec(`INSERT INTO vms (vm_id, pool_id, org_id, status, connected, last_seen_at, doc)
			VALUES (?, '', '', '', 0, 0, '{}')`, vm)
	}
	for _, row := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"a", "4"}} {
		exec(`INSERT INTO heartbeats (vm_id, received_at, docs) VALUES (?, 0, ?)`,
			row[0], []byte(`{"status": "s`+row[1]+`"}`+"\n"+`{"as_before": true}`+"\n"))
	}

	db := openTest(t, path)
	beats, err := db.Heartbeats(t.Context(), "a", store.Page{Size: 5})
	require.NoError(t, err)
	var said []string
	for _, h := range beats {
		said = append(said, h.Status)
	}
	require.Equal(t, []string{"s4", "s4", "s3", "s3", "s1"}, said)
}

// Changes keep their numbers, so that cursors stay good, and the numbers go on.
func TestMigrationKeepsChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	exec := openOld(t, path, 2)
	for _, row := range []struct {
		seq  int64
		vm   string
		docs [2]any // of a VM and of a command
		of   any    // the event
	}{
		{7, "a", [2]any{[]byte(`{"id": "a", "pool": "p"}`), nil}, nil},
		{8, "b", [2]any{nil, []byte(`{"id": "c", "vm": "b"}`)}, nil},
		{12, "a", [2]any{}, 5},
	} {
		exec(`INSERT INTO changes (seq, at, vm_id, vm, command, event_seq) VALUES (?, ?, ?, ?, ?, ?)`,
			row.seq, t0.UnixNano(), row.vm, row.docs[0], row.docs[1], row.of)
	}

	db := openTest(t, path)
	changes, err := db.Changes(t.Context(), store.ChangeFilter{}, 6, 10)
	require.NoError(t, err)
	require.Len(t, changes, 3)
	for i, seq := range []int64{7, 8, 12} {
		require.Equal(t, seq, changes[i].Seq)
		require.Equal(t, t0, changes[i].At)
	}
	require.EqualValues(t, "a", changes[0].Subject)
	require.Equal(t, "p", changes[0].VM.Pool)
	require.EqualValues(t, "c", changes[1].Command.ID)
	require.EqualValues(t, 5, changes[2].Event.Seq)
	_, err = db.Enqueue(t.Context(), drain(t, "new"), time.Now)
	require.NoError(t, err)
	last, err := db.LastChange(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 13, last)
}
