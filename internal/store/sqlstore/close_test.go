package sqlstore_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store/sqlstore"
)

// A closed store is one file: whoever copies it after a stop has everything.
func TestCloseLeavesOneFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, err := sqlstore.OpenSQLite(t.Context(), path, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defaults := fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute}
	c, err := fleet.CommandRequest{ID: "c-1", VM: "vm-1", Type: "drain"}.Accept(defaults, time.Unix(1_700_000_000, 0).UTC())
	require.NoError(t, err)
	_, err = db.Enqueue(t.Context(), c, time.Now)
	require.NoError(t, err)
	_, err = db.Command(t.Context(), c.ID)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{path}, files)

	elsewhere := filepath.Join(t.TempDir(), "copy.db")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(elsewhere, content, 0o600))
	db, err = sqlstore.OpenSQLite(t.Context(), elsewhere, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = db.Command(t.Context(), c.ID)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}
