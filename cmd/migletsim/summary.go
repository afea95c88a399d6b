package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/sim"
)

// summaryLine summarizes the current state of the fleet in one line.
func summaryLine(s sim.Snapshot, agents int, elapsed time.Duration) string {
	parts := []string{
		fmt.Sprintf("%8s", elapsed.Round(time.Second)),
		fmt.Sprintf("connected %d/%d", s.Connected, agents),
		fmt.Sprintf("registered %d", s.Registered),
		fmt.Sprintf("commands %d", s.TotalCommands()),
		fmt.Sprintf("acks %d", s.Acks),
		fmt.Sprintf("events %d", s.Events),
		fmt.Sprintf("heartbeats %d", s.Heartbeats),
	}
	for _, rare := range []struct {
		name  string
		value int64
	}{
		{"over HTTP", s.Posts},
		{"spent", s.Spent},
		{"replaced", s.Replaced},
		{"failed registrations", s.RegisterFailures},
		{"runner crashes", s.RunnerCrashes},
		{"unread", s.Unread},
		{"duplicates", s.Duplicates},
		{"drops", s.Drops},
		{"restarts", s.Restarts},
		{"reopens", s.Reopens},
		{"refused", s.Refused},
		{"REPEATED REGISTRATIONS", s.RegisterRepeats},
		{"errors", s.TotalErrors()},
	} {
		if rare.value > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", rare.name, rare.value))
		}
	}
	return strings.Join(parts, "  ")
}

// finalSummary lists all counts.
func finalSummary(s sim.Snapshot, agents int, elapsed time.Duration) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "  %-24s %s\n", name, fmt.Sprintf(format, args...))
	}
	_, _ = fmt.Fprintf(&b, "\n%s for %s\n", plural(agents, "agent"), elapsed.Round(100*time.Millisecond))
	row("connects", "%d", s.Connects)
	row("refused", "%d", s.Refused)
	row("network drops", "%d", s.Drops)
	row("agent restarts", "%d", s.Restarts)
	row("hot reconnects", "%d", s.Reopens)
	row("shutdowns", "%d", s.Shutdowns)
	row("spent VMs replaced", "%d", s.Replaced)
	row("runners registered", "%d", s.RunnersRegistered)
	row("failed registrations", "%d", s.RegisterFailures)
	row("runner crashes", "%d", s.RunnerCrashes)
	row("repeated registrations", "%d (and %d that the controller could not avoid)", s.RegisterRepeats, s.RegisterRaces)
	row("vm_started over HTTP", "%d", s.VMStarted)
	row("commands received", "%d%s", s.TotalCommands(), byName(s.Commands))
	row("  duplicates", "%d", s.Duplicates)
	row("  never read", "%d", s.Unread)
	row("  lost to a full buffer", "%d", s.Overflows)
	row("acks sent", "%d (%d suppressed on purpose)", s.Acks, s.AcksLost)
	row("events sent", "%d", s.Events)
	row("heartbeats sent", "%d", s.Heartbeats)
	row("  held back", "%d", s.LateBeats)
	row("events and heartbeats over HTTP", "%d", s.Posts)
	row("malformed messages sent", "%d", s.Strays)
	row("errors", "%d%s", s.TotalErrors(), byName(s.Errors))
	return b.String()
}

// byName lists counts, largest first.
func byName(counts map[string]int64) string {
	if len(counts) == 0 {
		return ""
	}
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if counts[a] != counts[b] {
			return int(counts[b] - counts[a])
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return ": " + strings.Join(names, ", ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
