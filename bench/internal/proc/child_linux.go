package proc

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// alone puts a process into a group of its own, so that Ctrl-C reaches this
// process only, and has the kernel kill it should this process die.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// environment is this process's own, without what sets options of the
// controller or of Go's runtime: all are measured with their defaults.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "CONTROLLER_") ||
			slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"}, name)
	})
}

// SyncDisks waits until all that was written is on the disk.
func SyncDisks() { syscall.Sync() }
