package app

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

// An empty database in a data directory with files of VMs is logged.
func TestEmptyDatabaseBesideVMs(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	database := filepath.Join(o.DataDir, config.StateDir, "controller.db")
	warnings := func() int {
		var text bytes.Buffer
		a, err := New(t.Context(), o, slog.New(slog.NewTextHandler(&text, nil)), io.Discard)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		return strings.Count(text.String(), "the database is empty")
	}
	require.Zero(t, warnings(), "everything is new")
	require.NoError(t, os.Mkdir(filepath.Join(o.DataDir, "vm-1"), 0o750))
	require.Zero(t, warnings(), "the database has content")
	require.NoError(t, os.Truncate(database, 0))
	require.Equal(t, 1, warnings())
	require.NoError(t, os.Remove(database))
	require.Equal(t, 1, warnings())
}
