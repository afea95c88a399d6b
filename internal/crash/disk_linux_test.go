package crash

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// A disk that accepts no more bytes, simulated by a limit on the size of files.
func TestNoMoreBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := start(t, dir)
	trouble := &diskTrouble{
		c: c, dir: dir,
		fill: func() { testkit.LimitFiles(t, c.cmd.Process.Pid, 0) },
		free: func() { testkit.LimitFiles(t, c.cmd.Process.Pid, testkit.NoLimit) },
	}
	trouble.run(t)

	// And a crash during that time.
	trouble.fill()
	trouble.refuse(t, "late")
	c.kill()
	trouble.c = start(t, dir)
	trouble.requireKept(t)
	requireFiles(t, trouble.c, dir)
}

// Promise 8 holds with a full disk as well: a stop while nothing can be written, with
// reports waiting, completes in time, and accepted commands survive.
func TestStopWhileDiskTakesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trouble := &diskTrouble{c: start(t, dir), dir: dir}
	c := trouble.c
	a := connectAgent(t, c, "vm-1")
	a.register(t)
	awaitIdle(t, c, 1)
	trouble.send(t, "before")
	testkit.LimitFiles(t, c.cmd.Process.Pid, 0)
	trouble.refuse(t, "during")
	a.beat(t, "job_running")
	trouble.beatUntilRefused(t)
	a.report(t, "job_started", "held back")
	asked := time.Now()
	c.terminate(t)
	t.Logf("status %d after %v", c.ended(t), time.Since(asked))
	require.Less(t, time.Since(asked), stopLimit)
	trouble.c = start(t, dir)
	trouble.requireKept(t)
	require.False(t, trouble.c.vm(t, "vm-1").GetConnected())
	requireFiles(t, trouble.c, dir)
}

// A full disk: a file system of a few MiB.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := launch(t, dir, inMount(t, dir, "-o size=4m", command(t, dir)))
	seen := filepath.Join(fmt.Sprintf("/proc/%d/root", c.cmd.Process.Pid), dir)
	ballast := filepath.Join(seen, "ballast")
	trouble := &diskTrouble{
		c: c, dir: seen,
		fill: func() { fillDisk(t, ballast) },
		free: func() { require.NoError(t, os.Remove(ballast)) },
	}
	trouble.run(t)
	requireFiles(t, c, seen)
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
}

// With a directory that cannot be written, the start fails with status 1 and a message that
// names it.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, _, stderr := run(t, inMount(t, dir, "-o ro", command(t, dir)))
	require.Equal(t, 1, status, stderr)
	require.Contains(t, stderr, dir)
	require.Contains(t, stderr, "read-only")
}

// inMount runs cmd with a file system of its own at dir, in memory, which disappears with
// the process. It skips the test, with a message, where that is not permitted.
func inMount(t *testing.T, dir, options string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	own := func(args ...string) *exec.Cmd {
		mount := `mount -t tmpfs ` + options + ` tmpfs "$0" && exec "$@"`
		inner := exec.CommandContext(t.Context(), "sh", append([]string{"-c", mount, dir}, args...)...)
		inner.Env = cmd.Env
		inner.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if os.Getuid() != 0 {
			inner.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			inner.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			inner.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		return inner
	}
	if out, err := own("true").CombinedOutput(); err != nil {
		t.Skipf("not tested here, since a process may not mount a file system of its own: %v\n%s", err, out)
	}
	return own(cmd.Args...)
}

// fillDisk writes a file as large as possible.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = io.Copy(f, endless{})
	require.ErrorIs(t, err, syscall.ENOSPC)
}

// endless is an endless file.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
