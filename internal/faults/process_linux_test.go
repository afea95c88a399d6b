package faults

import "syscall"

// childProcess is how processes are started: each leads a group of its own, which its
// children stay in, and is ended when the tests end without having done so.
func childProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
