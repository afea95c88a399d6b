package proc

import (
	"fmt"
	"syscall"
)

// spareFiles is what a process needs beside its connections. A controller keeps a tenth
// on top of that for peers at other addresses.
const spareFiles = 256

// NeedConnections raises the limit of open files, of this process and of those
// that it starts, to what so many connections take. It returns an error when
// the limit cannot be raised so far.
func NeedConnections(n int) error {
	need := uint64(n+spareFiles) * 10 / 9
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	// Set even when it is high enough: Go puts the limit of a child back to what
	// it was before this process started, unless it was set here.
	raised := syscall.Rlimit{Cur: max(need, limit.Cur), Max: max(need, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d connections need %d open files and the limit is %d: raise it with ulimit -Hn, or see -most: %w",
			n, need, limit.Max, err)
	}
	return nil
}
