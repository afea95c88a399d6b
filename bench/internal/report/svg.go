package report

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// style makes a plot readable on a light and on a dark page.
const style = `<style>
text{font:13px system-ui,sans-serif;fill:#24292f}
.title{font-weight:600}
.axis{stroke:#8c959f;stroke-width:1}
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

// line is how something grows.
type line struct {
	title, class string
	points       []point
}

// picture is an SVG file that is being drawn.
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

// drawBars draws medians as bars, with whiskers from the least to the most.
func drawBars(title string, bars []bar) string {
	const left, right, top, step, thick = 160.0, 560.0, 44.0, 34.0, 20.0
	height := int(top + step*float64(len(bars)) + 8)
	p := newPicture(title, height)
	most := 0.0
	for _, b := range bars {
		most = math.Max(most, b.spread.Max)
	}
	x := func(v float64) float64 { return left + v/most*(right-left) }
	for i, b := range bars {
		y := top + step*float64(i)
		middle := y + thick/2
		p.text(left-8, middle+4, "end", "label", b.title)
		p.addf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s"/>`,
			left, y, x(b.spread.Median)-left, thick, b.class)
		p.line(x(b.spread.Min), middle, x(b.spread.Max), middle, "whisker")
		p.line(x(b.spread.Min), middle-5, x(b.spread.Min), middle+5, "whisker")
		p.line(x(b.spread.Max), middle-5, x(b.spread.Max), middle+5, "whisker")
		p.text(x(b.spread.Max)+8, middle+4, "start", "value", figure(b.spread.Median))
	}
	p.line(left, top-6, left, float64(height)-8, "axis")
	return p.done()
}

// drawLines draws medians over sizes, which stand in powers of ten.
func drawLines(title string, lines []line) string {
	const left, right, top, bottom, height = 70.0, 520.0, 44.0, 250.0, 290
	p := newPicture(title, height)
	least, most, highest := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range lines {
		for _, pt := range l.points {
			least, most = math.Min(least, pt.at), math.Max(most, pt.at)
			highest = math.Max(highest, pt.spread.Max)
		}
	}
	x := func(at float64) float64 {
		return left + 10 + (math.Log10(at)-math.Log10(least))/(math.Log10(most)-math.Log10(least))*(right-left-20)
	}
	y := func(v float64) float64 { return bottom - v/highest*(bottom-top) }
	p.line(left, bottom, right, bottom, "axis")
	p.line(left, top, left, bottom, "axis")
	for _, v := range []float64{0, highest / 2, highest} {
		p.text(left-8, y(v)+4, "end", "label", figure(v))
	}
	marked := map[float64]bool{}
	for i, l := range lines {
		var path []string
		for _, pt := range l.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(pt.at), y(pt.spread.Median)))
			p.line(x(pt.at), y(pt.spread.Min), x(pt.at), y(pt.spread.Max), l.class)
			p.addf(`<circle cx="%.1f" cy="%.1f" r="3.5" class="%s"/>`, x(pt.at), y(pt.spread.Median), l.class)
			if !marked[pt.at] {
				marked[pt.at] = true
				p.text(x(pt.at), bottom+18, "middle", "label", figure(pt.at))
			}
		}
		p.addf(`<g class="%s"><polyline points="%s" class="line"/></g>`, l.class, strings.Join(path, " "))
		key := top + 20*float64(i)
		p.addf(`<rect x="%.1f" y="%.1f" width="12" height="12" class="%s"/>`, right+16, key, l.class)
		p.text(right+34, key+11, "start", "label", l.title)
	}
	return p.done()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
