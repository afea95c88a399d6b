//go:build faults

package faults

import "syscall"

// proxyProcess is how processes are started: each leads a group of its own, which its
// children stay in, and is ended when the tests end without having done so.
func proxyProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
