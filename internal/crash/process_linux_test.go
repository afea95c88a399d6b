package crash

import (
	"syscall"
)

// dieWithTests makes a process be killed if the tests end without having done so.
func dieWithTests() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
