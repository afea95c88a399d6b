package app

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// All processors are in use from the start, one after a long enough calm, and all
// again at the first busy period; in between nothing changes.
func TestProcessors(t *testing.T) {
	t.Parallel()
	const between = (busy + calm) / 2
	for name, test := range map[string]struct {
		used []float64
		all  bool
	}{
		"start":                 {nil, true},
		"calm, not for long":    {slices.Repeat([]float64{0}, calmPeriods-1), true},
		"calm":                  {slices.Repeat([]float64{0}, calmPeriods), false},
		"never quite calm":      {slices.Repeat([]float64{between}, 2*calmPeriods), true},
		"calm with a peak":      {slices.Concat(slices.Repeat([]float64{0}, calmPeriods-1), []float64{between, 0}), true},
		"busier, not busy":      {append(slices.Repeat([]float64{0}, calmPeriods), between), false},
		"busy":                  {append(slices.Repeat([]float64{0}, calmPeriods), 2*busy), true},
		"busy, and calm again":  {append(slices.Repeat([]float64{0}, calmPeriods), slices.Insert(slices.Repeat([]float64{0}, calmPeriods), 0, 2*busy)...), false},
		"more than one in use":  {slices.Repeat([]float64{3}, calmPeriods), true},
		"long calm stays so":    {slices.Repeat([]float64{0}, 5*calmPeriods), false},
		"calm just before busy": {append(slices.Repeat([]float64{0}, calmPeriods-1), 2*busy), true},
	} {
		p, all := processors{all: true}, true
		for _, used := range test.used {
			if p.changed(used) {
				all = !all
			}
			require.Equal(t, all, p.all, name)
		}
		require.Equal(t, test.all, all, name)
	}
}

// The time that the process has used is known, and grows with what it does.
func TestProcessorTime(t *testing.T) {
	t.Parallel()
	before, ok := processorTime()
	if !ok {
		require.Zero(t, before)
		return
	}
	require.Eventually(t, func() bool { // to ask is to use some
		now, _ := processorTime()
		return now > before
	}, 10*time.Second, time.Millisecond)
}
