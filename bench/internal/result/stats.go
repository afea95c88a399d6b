package result

import (
	"math"
	"slices"
)

// Spread summarizes several runs. Without runs all of it is NaN.
type Spread struct{ Median, Min, Max float64 }

// SpreadOf returns the spread of values.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return Spread{Percentile(values, 50), slices.Min(values), slices.Max(values)}
}

// Percentile returns the p-th percentile of values, interpolated between the two nearest.
// It does not change the order of values.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := p / 100 * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}
