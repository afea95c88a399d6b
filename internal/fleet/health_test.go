package fleet

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The percentage agrees with the byte counts. A reported percentage is used if it agrees,
// or if there are no byte counts.
func TestUsedPercent(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for _, test := range []struct {
		name        string
		reported    float64
		used, total int64
		want        float64
	}{
		{"today's agent reports 0 for every disk", 0, 178 * gib, 251 * gib, 178.0 / 251 * 100},
		{"also for one that is nearly empty", 0, gib, 100 * gib, 1},
		{"not measured", math.NaN(), 1, 4, 25},
		{"not measured", math.Inf(1), 1, 4, 25},
		{"out of range", -1, 1, 100, 1},
		{"out of range", 102, 100, 100, 100},
		{"a contradiction", 71, 20, 100, 20},
		{"more than 5 points above", 55.1, 50, 100, 50},
		{"more than 5 points below", 44.9, 50, 100, 50},
		{"root's blocks are not counted", 100, 95, 100, 100},
		{"rounded", 71, 712, 1000, 71},
		{"the maximum", 0, math.MaxInt64, math.MaxInt64, 100},
		{"no bytes", 12.5, 0, 0, 12.5},
		{"no total", 12.5, 1, 0, 12.5},
		{"no used", 12.5, 0, 100, 12.5},
		{"more used than there is", 12.5, 101, 100, 12.5},
		{"negative sizes", 12.5, -2, -1, 12.5},
		{"negative sizes", 12.5, math.MinInt64, math.MaxInt64, 12.5},
		{"nothing at all", 0, 0, 0, 0},
		{"out of range without bytes", 250, 0, 100, 250},
	} {
		t.Run(fmt.Sprintf("%s: %v", test.name, test.reported), func(t *testing.T) {
			t.Parallel()
			require.InDelta(t, test.want, UsedPercent(test.reported, test.used, test.total), 1e-9)
		})
	}
	require.True(t, math.IsNaN(UsedPercent(math.NaN(), 0, 100)), "it remains unknown")
}
