package testkit

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// LimitFiles sets the maximum size, in bytes, of the files of a process, up to the limit
// with which it was started.
func LimitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit))
	// The hard limit is unchanged, so that any user may raise the soft one again.
	limit.Cur = min(size, limit.Max)
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
}

// NoLimit lets files grow up to the hard limit.
const NoLimit = unix.RLIM_INFINITY
