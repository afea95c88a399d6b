package faults

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
)

// dataDir is the data directory of the controller.
func (c *controller) dataDir(t *testing.T) string {
	t.Helper()
	for _, option := range c.options {
		if dir, ok := strings.CutPrefix(option, "--data-dir="); ok {
			return dir
		}
	}
	require.FailNow(t, "it has no data directory")
	return ""
}

// A second controller cannot open the database of the first, by whatever path, and the
// first is not affected.
func testSecondController(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	database := filepath.Join(c.dataDir(t), "_state", "controller.db")
	other := t.TempDir()
	symbolic, hard := filepath.Join(other, "symbolic.db"), filepath.Join(other, "hard.db")
	require.NoError(t, os.Symlink(database, symbolic))
	require.NoError(t, os.Link(database, hard))
	for _, path := range []string{database, symbolic, hard} {
		second := startChild(t, exec.CommandContext(t.Context(), program(t, "controller"),
			"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--data-dir="+filepath.Join(other, "data"), "--database-url="+path))
		select {
		case <-second.exited:
		case <-time.After(patience):
			require.FailNow(t, "it serves", path)
		}
		require.Equal(t, 1, second.cmd.ProcessState.ExitCode())
		require.Contains(t, second.out.String(), "another controller uses the database "+path)
	}
	requireSameSession(t, c, a)
}

// ready returns the status and the text of /ready.
func (c *controller) ready(t *testing.T) (status int, text string) {
	t.Helper()
	return c.get(t, "/ready")
}

// get returns the status and the body at a path.
func (c *controller) get(t *testing.T, path string) (status int, text string) {
	t.Helper()
	client := &http.Client{Transport: newTransport(t)}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.addr+path, http.NoBody)
	require.NoError(t, err)
	answer, err := client.Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

// Nothing is accepted while the database is moved away, and everything continues when it is
// back.
func testRemovedDatabase(t *testing.T) {
	c := startController(t)
	c.send(t, "vm-1", "before")
	state := filepath.Join(c.dataDir(t), "_state")
	require.NoError(t, os.Rename(state, state+".away"))
	_, err := c.trySend(t.Context(), "vm-1", "meanwhile")
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	require.ErrorContains(t, err, "the database was removed")
	status, text := c.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, text, "the database was removed")
	require.NoError(t, os.Rename(state+".away", state))
	status, _ = c.ready(t)
	require.Equal(t, http.StatusOK, status)
	c.send(t, "vm-1", "after")
	require.Len(t, c.commands(t, "vm-1"), 2)
}

// A controller that starts without its database warns, and keeps the log of the lost
// database.
func testLostDatabase(t *testing.T) {
	c := startController(t)
	c.connectRegistered(t, "vm-1") // which creates its directory
	c.send(t, "vm-2", "lost")
	await(t, func() bool {
		_, err := os.Stat(filepath.Join(c.dataDir(t), "vm-1"))
		return err == nil
	}, "there is no directory")
	c.kill()
	database := filepath.Join(c.dataDir(t), "_state", "controller.db")
	require.NoError(t, os.Truncate(database, 0))
	c.start(t)
	c.awaitLine(t, "the database is empty")
	c.awaitLine(t, "it was renamed")
	aside, err := filepath.Glob(database + "-wal.stray-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}
