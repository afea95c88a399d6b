package faults

import "syscall"

// childProcess are the attributes of started processes: each leads a process group, which
// includes its children, and is killed if the tests end without having done so.
func childProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
