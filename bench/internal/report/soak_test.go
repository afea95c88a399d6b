package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

func hour() soak.Verdict {
	return soak.Verdict{
		Meta: result.Meta{Command: "bench soak", Commit: "abc", CPUs: 2}, VMs: 5000, For: time.Hour,
		Samples: []soak.Sample{
			{At: 10, RSS: 300 << 20, Goroutines: 15_000},
			{At: 20, RSS: 310 << 20, Goroutines: 15_010},
			{At: 3600, Life: 1, RSS: 200 << 20, Goroutines: 15_020, Done: 72_001, Replaced: 3599, Dropped: 7198},
		},
		Trends: []soak.Trend{{Name: "memory (MiB)", First: 190, Last: 200}, {Name: "threads", First: 10, Last: 20}},
		Back:   []time.Duration{3400 * time.Millisecond},
	}
}

// The section of a soak contains everything that it is run for: how it was made, each trend
// and whether it is flat, what was done and failed, and how long each kill took.
func TestSoakBody(t *testing.T) {
	t.Parallel()
	plot, _ := soakPlots(hour())
	text := soakBody(hour(), plot, "performance")
	for _, line := range []string{
		"## An hour\n", "5,000 VMs lived for 1h0m0s. `bench soak` at commit `abc`,",
		"| memory (MiB) | 190 | 200 | yes |\n", "| threads | 10 | 20 | no |\n",
		"| commands done | 72,001 |\n", "| commands failed | 0 |\n", "| VMs replaced by new ones | 3,599 |\n",
		"| connections dropped | 7,198 |\n", "| kills of the controller | 1 |\n",
		"| seconds until 99 % had reconnected after kill 1 | 3.4 |\n", "](performance/soak.svg)\n",
	} {
		require.Contains(t, text, line)
	}
	require.NotContains(t, text, "did not pass")
	failed := hour()
	failed.Faults, failed.For = []string{"threads grew"}, time.Minute
	text = soakBody(failed, plot, "performance")
	require.Contains(t, text, "**the soak did not pass: threads grew**\n")
	require.Contains(t, text, "## A soak of 1m0s\n", "a minute is not an hour")
}

// The plots have a line for each run of the controller, and round figures at their axes.
func TestSoakPlots(t *testing.T) {
	t.Parallel()
	memory, goroutines := soakPlots(hour())
	for _, p := range []Plot{memory, goroutines} {
		requireDrawn(t, p)
		require.Equal(t, 2, strings.Count(p.SVG, "<polyline"))
		require.Contains(t, p.SVG, ">minutes<")
		require.Contains(t, p.SVG, ">60<")
		require.Contains(t, p.SVG, "650.0,", "the last sample is at the end")
	}
	for _, text := range []string{">300<", ">MiB<"} {
		require.Contains(t, memory.SVG, text)
	}
	for _, text := range []string{">15,000<", ">goroutines<"} {
		require.Contains(t, goroutines.SVG, text)
	}
}

// The section of a soak is written without changing the figures, and vice versa.
func TestWriteSoakKeepsThePage(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(page, []byte(newPage+"\nAfter.\n"), 0o600))
	require.NoError(t, Write(results(), page))
	require.NoError(t, WriteSoak(hour(), page))
	first, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^# Performance\n.*0\.25×.*## An hour\n.*## Appendix\n.*### Goroutines\n.*### All figures\n.*\nAfter\.\n$`, string(first))
	require.FileExists(t, filepath.Join(filepath.Dir(page), "performance", "soak.svg"))
	require.NoError(t, WriteSoak(hour(), page))
	require.NoError(t, Write(results(), page))
	second, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, string(first), string(second))
}

// A page without marks for a soak is rejected.
func TestWriteSoakNeedsAPlace(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "a.md")
	require.NoError(t, os.WriteFile(page, []byte("# Speed\n"), 0o600))
	require.ErrorContains(t, WriteSoak(hour(), page), "must have the lines "+soakPart.begin)
}
