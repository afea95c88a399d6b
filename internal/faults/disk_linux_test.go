package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The disk is full for longer than the ack timeout, and the ack arrives meanwhile. It is in
// time, and counts when there is space again.
func testDiskFull(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "acked", withAckTimeout(2*time.Second))
	a.expect(t, "acked")
	testkit.LimitFiles(t, c.cmd.Process.Pid, 0)
	a.ack(t, "acked")
	a.beat(t)
	stays(t, 6*time.Second, func() bool { return c.command(t, "acked").GetState() == delivered }, "the disk is writable")
	testkit.LimitFiles(t, c.cmd.Process.Pid, testkit.NoLimit)
	c.awaitEnd(t, "acked", succeeded)
	c.requireAckedLife(t, "acked")
	require.Empty(t, c.out.lines(ofMessage("command timed out")))
	requireSameSession(t, c, a)
}
