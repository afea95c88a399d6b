//go:build unix

package httpserver

import "syscall"

// OpenFiles returns how many files the process may have open. The Go runtime has raised the
// soft limit to the hard one.
func OpenFiles() (uint64, bool) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return limit.Cur, err == nil
}
