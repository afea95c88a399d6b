package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A large heap gets a share of headroom, a small one enough not to be collected
// all the time.
func TestHeadroom(t *testing.T) {
	t.Parallel()
	for inUse, want := range map[uint64]int{
		0:         3200,
		1 << 20:   3200,
		32 << 20:  100,
		256 << 20: 12,
		1 << 40:   12,
	} {
		require.Equal(t, want, headroomPercent(inUse), "%d in use", inUse)
	}
}

// The runtime tells what the headroom is reckoned by.
func TestInUseIsKnown(t *testing.T) {
	t.Parallel()
	require.Greater(t, inUse(), uint64(64<<10))
}
