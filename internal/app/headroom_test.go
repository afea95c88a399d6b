package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The collector's headroom follows what is allocated: an idle fleet keeps little,
// a busy one not too much, and a small heap enough not to be collected
// all the time.
func TestHeadroom(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for name, test := range map[string]struct {
		inUse, allocated uint64
		want             int
	}{
		"nothing known":    {0, 0, 200},
		"small, idle":      {16 * mb, 0, 200},
		"small, busy":      {16 * mb, 9999 * mb, 200},
		"large, idle":      {320 * mb, 0, 10},
		"large, some load": {320 * mb, 80 * mb, 25},
		"large, busy":      {320 * mb, 9999 * mb, 50},
		"huge, idle":       {6400 * mb, 0, 5},
	} {
		require.Equal(t, test.want, headroomPercent(test.inUse, test.allocated), name)
	}
}

// The runtime tells what the headroom is reckoned by.
func TestHeapIsKnown(t *testing.T) {
	t.Parallel()
	inUse, allocated := heap()
	require.Greater(t, inUse, uint64(64<<10))
	require.Greater(t, allocated, uint64(64<<10))
}
