//go:build unix

package crash

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pipedLog is the reading end of the pipe that a controller logs to.
type pipedLog struct {
	*os.File
	t *testing.T
}

// startPiped starts a controller with stdout and stderr in one pipe, as under a supervisor.
// The pipe is read until the controller serves, and not afterwards.
func startPiped(t *testing.T) (*controller, pipedLog) {
	t.Helper()
	dir := t.TempDir()
	cmd := command(t, dir)
	var fds [2]int // blocking, unlike those of os.Pipe
	syscall.ForkLock.RLock()
	err := syscall.Pipe(fds[:])
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	r, w := os.NewFile(uintptr(fds[0]), "log"), os.NewFile(uintptr(fds[1]), "log")
	cmd.Stdout, cmd.Stderr = w, w
	log := newLogTail()
	var reading sync.WaitGroup
	reading.Go(func() { readStart(r, log) })
	c := launchLogged(t, dir, cmd, log)
	require.NoError(t, w.Close())
	reading.Wait()
	t.Cleanup(func() { _ = r.Close() }) // a test may have closed it
	return c, pipedLog{r, t}
}

// readStart reads the log until the controller serves.
func readStart(r *os.File, log *logTail) {
	started, part := log.await("controller started"), make([]byte, 1<<10)
	for {
		n, err := r.Read(part)
		_, _ = log.Write(part[:n]) // never fails
		select {
		case <-started:
			return
		default:
			if err != nil {
				return
			}
		}
	}
}

// fill makes the controller log more than the pipe can hold.
func (p pipedLog) fill(c *controller) {
	p.t.Helper()
	for i := range 1000 { // each logs a line of at least 150 bytes
		c.mustSend(p.t, "nobody", fmt.Sprintf("cmd-%d", i))
	}
}

// A log that is not read blocks nothing: agents and operators are served, and SIGTERM ends
// the controller in time.
func TestStalledLogStopsNothing(t *testing.T) {
	t.Parallel()
	c, log := startPiped(t)
	log.fill(c)
	a := connectAgent(t, c, "vm-1")
	require.Equal(t, registerRunner, a.next(t).GetType())
	require.Equal(t, pending, c.mustSend(t, "vm-1", "another").GetState())
	asked := time.Now()
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
	require.Less(t, time.Since(asked), stopLimit)
}

// A log whose reader has ended does not end the controller, and neither does a terminal
// that is closed.
func TestClosedLogEndsNothing(t *testing.T) {
	t.Parallel()
	c, log := startPiped(t)
	require.NoError(t, log.Close())
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGHUP))
	for i := range 3 { // each is logged
		c.mustSend(t, "nobody", fmt.Sprintf("cmd-%d", i))
		connectAgent(t, c, fmt.Sprintf("vm-%d", i)).hangUp()
	}
	require.False(t, c.hasExited())
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
}
