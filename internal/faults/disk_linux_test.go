package faults

import (
	"errors"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The disk takes nothing for longer than the ack timeout, and the ack arrives
// meanwhile. It is in time, and counts when there is room again.
func testDiskFull(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "acked", withAckTimeout(2*time.Second))
	a.expect(t, "acked")
	c.limitFiles(t, 0)
	a.ack(t, "acked")
	a.beat(t)
	stays(t, 6*time.Second, func() bool { return c.command(t, "acked").GetState() == delivered }, "the disk takes something")
	c.limitFiles(t, ^uint64(0))
	c.awaitEnd(t, "acked", succeeded)
	c.requireAckedLife(t, "acked")
	require.Empty(t, c.out.lines(ofMessage("command timed out")))
	requireSameSession(t, c, a)
}

// limitFiles sets how large the files may become that the controller writes.
func (c *controller) limitFiles(t *testing.T, size uint64) {
	t.Helper()
	// The hard limit stays, so that anybody may raise the soft one again.
	limit := syscall.Rlimit{Cur: size, Max: ^uint64(0)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(c.cmd.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errors.Is(errno, syscall.EPERM) {
		t.Skip("not tested here, since files of any size are not permitted to begin with")
	}
	require.Zero(t, errno, errno.Error())
}
