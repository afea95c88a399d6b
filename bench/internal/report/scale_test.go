package report

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Ticks are round, begin at zero, include the largest value, and are neither too few to be
// readable nor so many that they touch.
func TestScale(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64][]float64{
		0:       {0, 1},
		1:       {0, 0.2, 0.4, 0.6, 0.8, 1},
		45.3:    {0, 10, 20, 30, 40, 50},
		443:     {0, 100, 200, 300, 400, 500},
		650:     {0, 200, 400, 600, 800},
		879_258: {0, 200_000, 400_000, 600_000, 800_000, 1_000_000},
	} {
		require.InDeltaSlice(t, want, scaleTo(most).ticks(), 1e-9, "%v", most)
	}
	for most := 0.01; most < 1e7; most *= 1.07 {
		s := scaleTo(most)
		require.GreaterOrEqual(t, s.top, most)
		require.Less(t, s.top-most, s.step)
		require.Contains(t, []int{4, 5, 6, 7, 8, 9}, len(s.ticks()), "%v", most)
	}
}
