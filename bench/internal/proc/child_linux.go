package proc

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// alone starts a process in a process group of its own, so that Ctrl-C reaches only this
// process, and makes the kernel kill it if this process dies.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// environment is this process's environment without variables that set options of the
// controller or of the Go runtime: all are measured with their defaults.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "CONTROLLER_") ||
			slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"}, name)
	})
}

// SyncDisks waits until all writes are on the disk.
func SyncDisks() { syscall.Sync() }
