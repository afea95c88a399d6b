package report

import "math"

// scale is an axis that begins at zero and has a tick at each multiple of a round step.
type scale struct{ step, top float64 }

// scaleTo returns the scale with three to eight steps that includes most.
func scaleTo(most float64) scale {
	if most <= 0 {
		return scale{1, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(most/3)))
	for _, round := range []float64{5, 2} {
		if step*round <= most/3 {
			step *= round
			break
		}
	}
	return scale{step, math.Ceil(most/step) * step}
}

func (s scale) ticks() []float64 {
	var at []float64
	for i := range int(math.Round(s.top/s.step)) + 1 {
		at = append(at, float64(i)*s.step)
	}
	return at
}

// place interpolates v between from and to, which represent zero and the top.
func (s scale) place(v, from, to float64) float64 { return from + v/s.top*(to-from) }
