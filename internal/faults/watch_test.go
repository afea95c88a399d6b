//go:build faults

package faults

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// A watch whose link has died continues on another connection, 45 s after the last answer,
// and shows the missed changes once.
func testSilentWatch(t *testing.T) {
	c := startController(t)
	link := testkit.NewBlackhole(t, c.addr)
	watch := startChild(t, exec.CommandContext(t.Context(), program(t, "migctl"), "--address=http://"+link.Addr, "watch"))
	sees := func(text string, within time.Duration) {
		t.Helper()
		require.Eventually(t, func() bool { return len(watch.out.lines(text)) > 0 }, within, 10*time.Millisecond, text)
	}
	// The watch may not have begun with the first command.
	require.Eventually(t, func() bool {
		c.send(t, "vm-1", "before-"+time.Now().Format("150405.000"))
		return len(watch.out.lines("before-")) > 0
	}, patience, 100*time.Millisecond)

	link.Swallow()
	began := time.Now()
	c.send(t, "vm-1", "missed")
	link.Mend()
	sees("Lost the connection to the controller; reconnecting.", time.Minute)
	require.Greater(t, time.Since(began), 40*time.Second, "45 s after the last answer")
	sees("Reconnected; nothing was missed.", patience)
	c.send(t, "vm-1", "after")
	sees("set_log_level after", patience)
	require.Len(t, watch.out.lines("set_log_level missed"), 1)
}
