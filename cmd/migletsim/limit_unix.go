//go:build unix

package main

import (
	"fmt"
	"io"
	"syscall"
)

// reservedFiles is what the process needs in addition to its connections.
const reservedFiles = 64

// warnOfFileLimit raises the limit of open files as far as permitted and warns if it is
// still too low for one connection per agent.
func warnOfFileLimit(stderr io.Writer, agents int) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	need := uint64(agents) + reservedFiles
	if uint64(limit.Cur) >= need { //nolint:unconvert // signed on some systems
		return
	}
	if limit.Cur < limit.Max {
		raised := limit
		raised.Cur = limit.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	if uint64(limit.Cur) < need { //nolint:unconvert // signed on some systems
		_, _ = fmt.Fprintf(stderr, "migletsim: warning: %d agents need %d open files, the limit is %d; see \"ulimit -n\"\n",
			agents, need, limit.Cur)
	}
}
