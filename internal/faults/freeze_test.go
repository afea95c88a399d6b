package faults

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The controller is suspended while an ack is on its way, for longer than the ack timeout.
// The ack counts when it continues.
func testFrozenController(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "acked", withAckTimeout(2*time.Second))
	a.expect(t, "acked")
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	a.ack(t, "acked")
	a.beat(t)
	<-time.After(5 * time.Second) // there is no event to wait for
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	c.awaitEnd(t, "acked", succeeded)
	requireSameSession(t, c, a)
	require.Empty(t, c.out.lines(ofMessage("command timed out")))
}

// requireAckedLife requires the log messages of a command that succeeded.
func (c *controller) requireAckedLife(t *testing.T, id string) {
	t.Helper()
	c.awaitLine(t, ofMessage("command acked"), ofCommand(id))
	require.Equal(t, []string{"command accepted", "command delivered", "command acked"}, c.life(id))
}
