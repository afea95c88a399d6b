package clienttest

import "syscall"

// dieWithTests has a process killed when the tests end without having done so.
func dieWithTests() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
