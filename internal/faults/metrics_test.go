package faults

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// metric reports whether /metrics has a line, such as `watches 0`.
func (c *controller) metric(t *testing.T, line string) bool {
	t.Helper()
	status, text := c.get(t, "/metrics")
	require.Equal(t, http.StatusOK, status)
	return strings.Contains(text, "\nmigcontroller_"+line+"\n")
}

// While the database cannot be written, metrics are served all the same and show it; what
// was not stored is not counted.
func testMetricsInOutage(t *testing.T) {
	c := startController(t)
	c.send(t, "vm-1", "before")
	await(t, func() bool { return c.metric(t, `check_ok{check="store"} 1`) }, "the store was not checked")
	state := filepath.Join(c.dataDir(t), "_state")
	require.NoError(t, os.Rename(state, state+".away"))
	_, err := c.trySend(t.Context(), "vm-1", "meanwhile")
	require.Error(t, err)
	await(t, func() bool { return c.metric(t, `check_ok{check="store"} 0`) }, "the outage does not show")
	require.True(t, c.metric(t, `check_ok{check="journal"} 1`))
	require.NoError(t, os.Rename(state+".away", state))
	c.send(t, "vm-1", "after")
	require.True(t, c.metric(t, `commands_accepted_total{type="set_log_level"} 2`))
}
