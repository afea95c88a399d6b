package result

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A percentile is that of the sorted values, and their order is not changed.
func TestPercentile(t *testing.T) {
	t.Parallel()
	values := []float64{5, 1, 4, 2, 3}
	for _, test := range []struct{ p, want float64 }{{0, 1}, {25, 2}, {50, 3}, {90, 4.6}, {100, 5}} {
		require.InDelta(t, test.want, Percentile(values, test.p), 1e-9, "p%v", test.p)
	}
	require.Equal(t, []float64{5, 1, 4, 2, 3}, values)
	require.InDelta(t, 7, Percentile([]float64{7}, 99), 1e-9)
	require.True(t, math.IsNaN(Percentile(nil, 50)))
}

// A spread is the median with its range, or NaN without values.
func TestSpreadOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, Spread{Median: 2.5, Min: 1, Max: 4}, SpreadOf([]float64{4, 1, 3, 2}))
	require.True(t, math.IsNaN(SpreadOf(nil).Median))
}
