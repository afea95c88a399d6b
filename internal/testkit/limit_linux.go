package testkit

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// LimitFiles sets how large, in bytes, the files of a process may become. More than
// the process was permitted when it started is that much.
func LimitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit))
	// The hard limit stays, so that anybody may raise the soft one again.
	limit.Cur = min(size, limit.Max)
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
}

// NoLimit lets files become as large as they may.
const NoLimit = unix.RLIM_INFINITY
