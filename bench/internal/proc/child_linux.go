package proc

import (
	"os"
	"strings"
	"syscall"
)

// alone puts a process into a group of its own, so that Ctrl-C reaches this
// process only, and has the kernel kill it should this process die.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// environment is this process's own, without what sets options of the
// controller: it is measured with its defaults.
func environment() []string {
	var kept []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTROLLER_") {
			kept = append(kept, kv)
		}
	}
	return kept
}
