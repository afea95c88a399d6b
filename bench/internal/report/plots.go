package report

import (
	"fmt"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// Plot is a picture of some results.
type Plot struct {
	// Name is the file's, without its end.
	Name  string
	Title string
	SVG   string
}

// The figures that are shown as bars.
var barPlots = []struct{ name, title, measure, value string }{
	{"flood", "Heartbeats stored each second, 50 VMs that send all they can", "flood", "per_second"},
	{"paced", "Server CPU for a heartbeat, 2,000 VMs, 4,000 heartbeats a second (µs)", "paced", "cpu_us"},
	{"idle", "Memory for an idle VM, 10,000 VMs (KiB)", "idle", "kib_per_stream"},
	{"connect", "VMs connected and registered each second", "connect", "per_second"},
	{"round-trip", "From SendCommand to the recorded ack, median (µs)", "round-trip", "p50_us"},
	{"commands", "Commands acked and recorded each second, 1,000 VMs", "commands", "per_second"},
}

// The figures that are shown as lines.
var linePlots = []struct{ name, title, axis, measure, value string }{
	{"growth-heartbeat", "Server CPU for a heartbeat (µs)", "VMs", "growth-vms", "heartbeat_cpu_us"},
	{"growth-command", "Server CPU for a command (µs)", "VMs", "growth-vms", "command_cpu_us"},
	{"growth-stored", "Server CPU for a command (µs)", "stored commands", "growth-stored", "command_cpu_us"},
}

// Plots draws what there are results for.
func Plots(r result.Results) []Plot {
	var plots []Plot
	for _, p := range barPlots {
		var bars []bar
		for _, t := range titles {
			if values := r.Of(p.measure, t.server, p.value, 0); len(values) > 0 {
				bars = append(bars, bar{t.title, t.server, result.SpreadOf(values)})
			}
		}
		if len(bars) > 0 {
			plots = append(plots, Plot{p.name, p.title, drawBars(p.title, bars)})
		}
	}
	for _, p := range linePlots {
		var lines []line
		for _, t := range titles {
			l := line{title: t.title, class: t.server}
			for _, at := range r.Sizes(p.measure) {
				if values := r.Of(p.measure, t.server, p.value, at); len(values) > 0 {
					l.points = append(l.points, point{float64(at), result.SpreadOf(values)})
				}
			}
			if len(l.points) > 1 {
				lines = append(lines, l)
			}
		}
		if len(lines) > 0 {
			title := fmt.Sprintf("%s by the number of %s", p.title, p.axis)
			plots = append(plots, Plot{p.name, title, drawLines(title, lines)})
		}
	}
	return plots
}
