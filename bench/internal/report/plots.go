package report

import (
	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// Plot is a picture of some results.
type Plot struct {
	// Name is the file's name without its extension.
	Name  string
	Title string
	// Says is a sentence about what the plot shows, and which direction is better.
	Says string
	SVG  string
}

// The figures that are shown as bars.
var barPlots = []struct{ name, title, says, axis, measure, value string }{
	{
		"flood", "Heartbeats stored, 50 VMs that send all they can",
		"Heartbeats stored per second when 50 VMs send as fast as they can: longer bars are better.",
		"heartbeats per second", "flood", "per_second",
	},
	{
		"paced", "CPU for a heartbeat, 2,000 VMs, 4,000 heartbeats a second",
		"The server's CPU time per heartbeat when 2,000 VMs send 4,000 a second: shorter bars are better.",
		"µs of the server's CPU per heartbeat", "paced", "cpu_us",
	},
	{
		"idle", "Memory for an idle VM, 10,000 VMs",
		"The server's memory per idle VM, with 10,000 VMs: shorter bars are better.",
		"KiB of memory per VM", "idle", "kib_per_stream",
	},
	{
		"connect", "VMs connected and registered",
		"VMs that connect and register their runners per second: longer bars are better.",
		"VMs per second", "connect", "per_second",
	},
	{
		"round-trip", "From SendCommand to the recorded ack, median",
		"The time from SendCommand to the recorded ack, with one command at a time: shorter bars are better.",
		"µs", "round-trip", "p50_us",
	},
	{
		"commands", "Commands acked and recorded, 1,000 VMs",
		"Commands for 1,000 VMs that are acked and recorded per second: longer bars are better.",
		"commands per second", "commands", "per_second",
	},
}

// The figures that are drawn as lines.
var linePlots = []struct{ name, title, says, xAxis, yAxis, measure, value string }{
	{
		"growth-heartbeat", "CPU for a heartbeat by the number of VMs",
		"The server's CPU time per heartbeat as the fleet grows: lower is better, and a flat line is best.",
		"VMs", "µs of the server's CPU per heartbeat", "growth-vms", "heartbeat_cpu_us",
	},
	{
		"growth-command", "CPU for a command by the number of VMs",
		"The server's CPU time per command as the fleet grows: lower is better, and a flat line is best.",
		"VMs", "µs of the server's CPU per command", "growth-vms", "command_cpu_us",
	},
	{
		"growth-stored", "CPU for a command by the number of stored commands",
		"The server's CPU time per command as more commands are stored: lower is better, and a flat line is best.",
		"stored commands", "µs of the server's CPU per command", "growth-stored", "command_cpu_us",
	},
}

// Plots draws the available results.
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
			plots = append(plots, Plot{p.name, p.title, p.says, drawBars(p.title, p.axis, bars)})
		}
	}
	for _, p := range linePlots {
		if lines := linesOf(r, p.measure, p.value); len(lines) > 0 {
			plots = append(plots, Plot{p.name, p.title, p.says, drawLines(p.title, p.xAxis, p.yAxis, lines)})
		}
	}
	return plots
}

// linesOf returns a line for each server that was measured at several sizes.
func linesOf(r result.Results, measure, value string) []line {
	var lines []line
	for _, t := range titles {
		l := line{title: t.title, class: t.server}
		for _, at := range r.Sizes(measure) {
			if values := r.Of(measure, t.server, value, at); len(values) > 0 {
				l.points = append(l.points, point{float64(at), result.SpreadOf(values)})
			}
		}
		if len(l.points) > 1 {
			lines = append(lines, l)
		}
	}
	return lines
}
