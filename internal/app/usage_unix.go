//go:build unix

package app

import (
	"syscall"
	"time"
)

// processorTime returns how much time of processors the process has used.
func processorTime() (time.Duration, bool) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err == nil
}
