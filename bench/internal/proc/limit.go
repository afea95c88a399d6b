package proc

import (
	"fmt"
	"syscall"
)

// reservedFiles is what a process needs in addition to its connections. A controller
// reserves a tenth more for peers at other addresses.
const reservedFiles = 256

// NeedConnections raises the limit of open files, of this process and its children, to what
// n connections need. It returns an error if the limit cannot be raised that far.
func NeedConnections(n int) error {
	need := uint64(n+reservedFiles) * 10 / 9
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	// Set even if it is high enough: Go resets the limit of a child to what it was before
	// this process started, unless it was set here.
	raised := syscall.Rlimit{Cur: max(need, limit.Cur), Max: max(need, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d connections need %d open files and the limit is %d: raise it with ulimit -Hn, or see -most: %w",
			n, need, limit.Max, err)
	}
	return nil
}
