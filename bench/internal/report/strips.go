package report

import (
	"fmt"
	"slices"
	"strings"
)

// strip is how something went: a value for each time.
type strip struct {
	title  string
	values []float64
}

// drawStrips draws strips below each other, over the same seconds. Lines break
// where a life ends.
func drawStrips(title string, at []float64, lives []int, strips ...strip) string {
	const left, right, top, high, gap = 70.0, 650.0, 60.0, 120.0, 52.0
	p := newPicture(title, int(top+(high+gap)*float64(len(strips))))
	end := max(1, slices.Max(at))
	x := func(at float64) float64 { return left + at/end*(right-left) }
	for i, s := range strips {
		bottom := top + (high+gap)*float64(i) + high
		highest := max(1, slices.Max(s.values))
		y := func(v float64) float64 { return bottom - v/highest*high }
		p.text(left, bottom-high-8, "start", "label", s.title)
		p.line(left, bottom, right, bottom, "axis")
		p.line(left, bottom-high, left, bottom, "axis")
		for _, v := range []float64{0, highest / 2, highest} {
			p.text(left-8, y(v)+4, "end", "label", figure(v))
		}
		for _, at := range []float64{0, end / 2, end} {
			p.text(x(at), bottom+18, "middle", "label", figure(at/60)+" min")
		}
		for from := 0; from < len(at); {
			var path []string
			life := lives[from]
			for ; from < len(at) && lives[from] == life; from++ {
				path = append(path, fmt.Sprintf("%.1f,%.1f", x(at[from]), y(s.values[from])))
			}
			p.addf(`<g class="controller"><polyline points="%s" class="line"/></g>`, strings.Join(path, " "))
		}
	}
	return p.done()
}
