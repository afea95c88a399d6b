package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// diskSize is the size in bytes of the small disk.
const diskSize = 64 << 20

// startOnSmallDisk starts the controller with its data directory on a file system of its own,
// and returns the path of that file system.
func (c *controller) startOnSmallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Dir(c.dataDir(t))
	// The mount is visible to this process only, so nothing remains of it.
	isolated := []string{"--mount"}
	if os.Geteuid() != 0 {
		isolated = []string{"--user", "--map-root-user", "--mount"}
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", append(isolated, "mount", "-t", "tmpfs", "tmpfs", dir)...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: a file system cannot be mounted here, as root or in a user namespace: %v: %s", err, out)
	}
	mount := `mount -t tmpfs -o size=` + strconv.Itoa(diskSize) + ` tmpfs "$0" && exec "$@"`
	c.child = startChild(t, exec.CommandContext(t.Context(), "unshare",
		append(append(isolated, "sh", "-c", mount, dir, program(t, "controller")), c.options...)...))
	c.awaitStart(t)
	return fmt.Sprintf("/proc/%d/root%s", c.cmd.Process.Pid, dir)
}

// The disk fills up: first the files of the journal are no longer written, then the database
// cannot be.
func testAlertDiskFull(t *testing.T) {
	c := newController(t)
	disk := c.startOnSmallDisk(t)
	c.startSim(t, "--vms=5", "--job-every=0", "--register-time=100ms", "--heartbeat-interval=500ms")
	// The small disk would be full from the start.
	p := startPrometheus(t, []string{c.url()}, "512 * 1024 * 1024", "2 * 1024 * 1024")
	await(t, func() bool { return len(p.query(t, "migcontroller_database_free_space_bytes > 4e6")) == 1 }, "there is no free space")
	p.awaitQuiet(t)
	filler, err := os.Create(filepath.Join(disk, "filler"))
	require.NoError(t, err)
	defer filler.Close()
	for chunk := make([]byte, 256<<10); err == nil; {
		_, err = filler.Write(chunk)
	}
	p.awaitAlert(t, "MIGDiskFull")
	p.awaitAlert(t, "MIGControllerNotReady", "check", "store")
	require.NoError(t, filler.Truncate(0))
	p.awaitEnd(t, "MIGControllerNotReady")
	p.awaitEnd(t, "MIGDiskFull")
}
