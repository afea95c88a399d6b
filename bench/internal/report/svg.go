package report

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// style makes a plot readable on light and dark pages.
const style = `<style>
text{font:13px system-ui,sans-serif;fill:#24292f}
.title{font-weight:600}
.axis{stroke:#8c959f;stroke-width:1}
.grid{stroke:#8c959f;stroke-width:1;opacity:.25}
.whisker{stroke:#24292f;stroke-width:1.5;fill:none}
.bare{fill:#8c959f;stroke:#8c959f}.controller{fill:#0969da;stroke:#0969da}
.line{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.whisker{stroke:#e6edf3}.controller{fill:#4493f8;stroke:#4493f8}}
</style>
`

const plotWidth = 680

// bar is a median with its range.
type bar struct {
	title, class string
	spread       result.Spread
}

// point is a median with its range at a size.
type point struct {
	at     float64
	spread result.Spread
}

// line is the growth of a value.
type line struct {
	title, class string
	points       []point
}

// picture is an SVG file being drawn.
type picture struct{ b strings.Builder }

func newPicture(title string, height int) *picture {
	p := &picture{}
	p.addf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`,
		plotWidth, height, plotWidth, height)
	p.addf(`<title>%s</title>`, escape(title))
	p.b.WriteString(style)
	p.text(10, 22, "start", "title", title)
	return p
}

func (p *picture) addf(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *picture) text(x, y float64, anchor, class, s string) {
	p.addf(`<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, escape(s))
}

func (p *picture) line(x1, y1, x2, y2 float64, class string) {
	p.addf(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

func (p *picture) done() string { return p.b.String() + "</svg>\n" }

// drawBars draws medians as bars, with whiskers for the range. axis is the label of the
// value, with its unit.
func drawBars(title, axis string, bars []bar) string {
	const left, right, top, step, thick = 160.0, 560.0, 44.0, 34.0, 20.0
	bottom := top + step*float64(len(bars))
	p := newPicture(title, int(bottom+52))
	most := 0.0
	for _, b := range bars {
		most = math.Max(most, b.spread.Max)
	}
	s := scaleTo(most)
	for _, v := range s.ticks() {
		x := s.place(v, left, right)
		p.line(x, top-6, x, bottom, "grid")
		p.text(x, bottom+18, "middle", "label", figure(v))
	}
	p.text((left+right)/2, bottom+40, "middle", "label", axis)
	p.line(left, top-6, left, bottom, "axis")
	for i, b := range bars {
		y := top + step*float64(i)
		middle := y + thick/2
		least, median, most := s.place(b.spread.Min, left, right), s.place(b.spread.Median, left, right), s.place(b.spread.Max, left, right)
		p.text(left-8, middle+4, "end", "label", b.title)
		p.addf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s"/>`, left, y, median-left, thick, b.class)
		p.line(least, middle, most, middle, "whisker")
		p.line(least, middle-5, least, middle+5, "whisker")
		p.line(most, middle-5, most, middle+5, "whisker")
		p.text(right+12, middle+4, "start", "value", figure(b.spread.Median))
	}
	return p.done()
}

// plane is the drawing area of lines: sizes from left to right, on a logarithmic scale, and
// values from bottom to top.
type plane struct {
	left, right, top, bottom float64
	least, most              float64 // sizes
	values                   scale
}

func planeOf(lines []line) plane {
	p := plane{left: 70, right: 520, top: 64, bottom: 260, least: math.Inf(1), most: math.Inf(-1)}
	highest := 0.0
	for _, l := range lines {
		for _, pt := range l.points {
			p.least, p.most = math.Min(p.least, pt.at), math.Max(p.most, pt.at)
			highest = math.Max(highest, pt.spread.Max)
		}
	}
	p.values = scaleTo(highest)
	return p
}

func (p plane) x(at float64) float64 {
	share := (math.Log10(at) - math.Log10(p.least)) / (math.Log10(p.most) - math.Log10(p.least))
	return p.left + 10 + share*(p.right-p.left-20)
}

func (p plane) y(v float64) float64 { return p.values.place(v, p.bottom, p.top) }

// drawLines draws medians over sizes, with the range of each. The axes are labels with
// their units.
func drawLines(title, xAxis, yAxis string, lines []line) string {
	at := planeOf(lines)
	p := newPicture(title, int(at.bottom)+52)
	p.text(10, at.top-16, "start", "label", yAxis)
	for _, v := range at.values.ticks() {
		p.line(at.left, at.y(v), at.right, at.y(v), "grid")
		p.text(at.left-8, at.y(v)+4, "end", "label", figure(v))
	}
	for v := math.Pow(10, math.Ceil(math.Log10(at.least))); v <= at.most; v *= 10 {
		p.line(at.x(v), at.bottom, at.x(v), at.bottom+4, "axis")
		p.text(at.x(v), at.bottom+18, "middle", "label", figure(v))
	}
	p.text((at.left+at.right)/2, at.bottom+40, "middle", "label", xAxis+" (logarithmic)")
	p.line(at.left, at.bottom, at.right, at.bottom, "axis")
	p.line(at.left, at.top, at.left, at.bottom, "axis")
	for i, l := range lines {
		var path []string
		for _, pt := range l.points {
			x, y := at.x(pt.at), at.y(pt.spread.Median)
			path = append(path, fmt.Sprintf("%.1f,%.1f", x, y))
			p.line(x, at.y(pt.spread.Min), x, at.y(pt.spread.Max), l.class)
			p.addf(`<circle cx="%.1f" cy="%.1f" r="3.5" class="%s"/>`, x, y, l.class)
		}
		p.addf(`<g class="%s"><polyline points="%s" class="line"/></g>`, l.class, strings.Join(path, " "))
		key := at.top + 20*float64(i)
		p.addf(`<rect x="%.1f" y="%.1f" width="12" height="12" class="%s"/>`, at.right+16, key, l.class)
		p.text(at.right+34, key+11, "start", "label", l.title)
	}
	return p.done()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}
