package report

import (
	"fmt"
	"slices"
	"strings"
)

// drawCourse draws a value over the seconds of a soak. The line breaks where the controller
// was killed. axis is the label of the value, with its unit.
func drawCourse(title, axis string, at []float64, lives []int, values []float64) string {
	const left, right, top, bottom = 70.0, 650.0, 64.0, 204.0
	p := newPicture(title, int(bottom)+52)
	minutes, s := scaleTo(max(1, slices.Max(at))/60), scaleTo(slices.Max(values))
	x := func(at float64) float64 { return minutes.place(at/60, left, right) }
	y := func(v float64) float64 { return s.place(v, bottom, top) }
	p.text(10, top-16, "start", "label", axis)
	for _, v := range s.ticks() {
		p.line(left, y(v), right, y(v), "grid")
		p.text(left-8, y(v)+4, "end", "label", figure(v))
	}
	for _, v := range minutes.ticks() {
		p.text(x(v*60), bottom+18, "middle", "label", figure(v))
	}
	p.text((left+right)/2, bottom+40, "middle", "label", "minutes")
	p.line(left, bottom, right, bottom, "axis")
	p.line(left, top, left, bottom, "axis")
	for from := 0; from < len(at); {
		var path []string
		life := lives[from]
		for ; from < len(at) && lives[from] == life; from++ {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(at[from]), y(values[from])))
		}
		p.addf(`<g class="controller"><polyline points="%s" class="line"/></g>`, strings.Join(path, " "))
	}
	return p.done()
}
