package proc

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Processor time is user plus system time, whatever the name of the program contains.
func TestParseCPU(t *testing.T) {
	t.Parallel()
	const rest = " S 1 2 3 4 5 6 7 8 9 10 250 50 7 8 20 0 5 0 100\n"
	for _, name := range []string{"(controller)", "(a b)", "(a) S (b)"} {
		got, err := parseCPU([]byte("42 " + name + rest))
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, got, name)
	}
	for _, bad := range []string{"", "42 controller", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		_, err := parseCPU([]byte(bad))
		require.Error(t, err, bad)
	}
}

// Memory and threads are found among the other lines; a status without them is an error,
// not zero.
func TestParseStatus(t *testing.T) {
	t.Parallel()
	got, err := parseStatus("Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t7\n")
	require.NoError(t, err)
	require.Equal(t, Status{RSS: 2 << 20, Threads: 7}, got)
	for _, bad := range []string{"", "Threads:\t7\n", "VmRSS:\t1 kB\n", "VmRSS:\tmuch kB\nThreads:\t7\n"} {
		_, err := parseStatus(bad)
		require.Error(t, err, bad)
	}
}

// This process itself can be read.
func TestReadStatus(t *testing.T) {
	t.Parallel()
	s, err := ReadStatus(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, s.RSS)
	require.Positive(t, s.Threads)
	require.Positive(t, s.Files)
	_, err = CPU(os.Getpid())
	require.NoError(t, err)
}
