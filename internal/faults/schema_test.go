package faults

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// database is the path of the controller's database.
func (c *controller) database(t *testing.T) string {
	t.Helper()
	return filepath.Join(c.dataDir(t), "_state", "controller.db")
}

// openDatabase opens the controller's database as another program would, on one connection.
func (c *controller) openDatabase(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", c.database(t))
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() }) // a test may have closed it
	return db
}

// change changes the database of a controller that is not running.
func (c *controller) change(t *testing.T, statement string) {
	t.Helper()
	db := c.openDatabase(t)
	_, err := db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// A controller does not change a database that a later version has migrated, and reports
// both versions. A rollback journal next to a database in WAL mode is reported, and changes
// nothing.
func testLaterSchema(t *testing.T) {
	c := startController(t)
	c.send(t, "vm-1", "before")
	c.terminate(t)
	c.change(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	before, err := os.ReadFile(c.database(t))
	require.NoError(t, err)

	refused := startChild(t, exec.CommandContext(t.Context(), program(t, "controller"), c.options...))
	select {
	case <-refused.exited:
	case <-time.After(patience):
		require.FailNow(t, "it serves")
	}
	require.Equal(t, 1, refused.cmd.ProcessState.ExitCode())
	require.Regexp(t, `its schema is version 9999, and this program knows only versions up to \d+\b`, refused.out.String())
	after, err := os.ReadFile(c.database(t))
	require.NoError(t, err)
	require.Equal(t, before, after)

	c.change(t, "DELETE FROM goose_db_version WHERE version_id = 9999")
	journal := c.database(t) + "-journal"
	require.NoError(t, os.WriteFile(journal, []byte("of another database"), 0o600))
	c.start(t)
	require.Contains(t, c.awaitLine(t, `"level":"WARN"`, "this file does not belong to the database"), journal)
	require.Equal(t, pending, c.command(t, "before").GetState())
}
