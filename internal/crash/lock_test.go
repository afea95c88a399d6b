package crash

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// A data directory has one controller. A second one exits with status 1 and a message that
// names the directory, without affecting the first. The lock of a killed controller blocks
// nothing.
func TestDataDirectoryHasOneController(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir)
	first.mustSend(t, "vm-1", "cmd-1")
	a := connectAgent(t, first, "vm-1")
	require.Equal(t, "cmd-1", a.next(t).GetId())
	for range 3 {
		status, _, stderr := run(t, command(t, dir))
		require.Equal(t, 1, status, stderr)
		require.Contains(t, stderr, dir)
		require.Contains(t, stderr, "another controller uses the data directory")
	}
	require.True(t, first.vm(t, "vm-1").GetConnected(), "the second ended no session")
	a.ack(t, "cmd-1")
	first.waitState(t, "cmd-1", succeeded)
	first.mustSend(t, "vm-2", "cmd-2")

	first.kill()
	next := start(t, dir)
	require.Equal(t, pending, next.command(t, "cmd-2").GetState())
}

// A database has one controller, whatever path leads to it. The second one exits, even if
// it uses another data directory, without affecting the first.
func TestDatabaseHasOneController(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir)
	connectAgent(t, first, "vm-1")
	database := filepath.Join(dir, "_state", "controller.db")
	hard, symbolic := filepath.Join(t.TempDir(), "hard.db"), filepath.Join(t.TempDir(), "symbolic.db")
	require.NoError(t, os.Link(database, hard))
	require.NoError(t, os.Symlink(database, symbolic))
	for _, path := range []string{database, hard, symbolic} {
		status, _, stderr := run(t, command(t, t.TempDir(), "--database-url", path))
		require.Equal(t, 1, status, stderr)
		require.Contains(t, stderr, "another controller uses the database "+path)
	}
	require.True(t, first.vm(t, "vm-1").GetConnected(), "the second ended no session")
	first.mustSend(t, "vm-2", "cmd-2")
}

// Nothing is accepted once the data directory is removed, and the controller reports why.
func TestRemovedDataDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	c := start(t, dir)
	c.mustSend(t, "vm-1", "cmd-1")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "_state")))
	_, err := c.send(t.Context(), "cmd-2", &migcontrollerv1.SendCommandRequest{VmId: "vm-1"})
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	status, answer := c.get(t, "/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, answer, "was removed")
}
