package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

func results() result.Results {
	r := result.Results{Meta: result.Meta{Command: "bench run", Commit: "abc", CPUs: 2}}
	add := func(measure, server string, at int, name string, values ...float64) {
		for run, v := range values {
			r.Samples = append(r.Samples, result.Sample{
				Measure: measure, Server: server, Run: run + 1, At: at, Values: map[string]float64{name: v},
			})
		}
	}
	add("flood", "bare", 0, "per_second", 400_000, 420_000, 380_000)
	add("flood", "controller", 0, "per_second", 100_000, 90_000, 110_000)
	add("idle", "bare", 0, "kib_per_stream", 40, 40, 40)
	add("idle", "controller", 0, "kib_per_stream", 60, 56, 64)
	add("growth-vms", "controller", 100, "command_cpu_us", 120, 110)
	add("growth-vms", "controller", 1000, "command_cpu_us", 130, 115)
	return r
}

// The table has a row for each target, with the median of the ratios, their range and the
// verdict, or "not measured".
func TestTable(t *testing.T) {
	t.Parallel()
	table := Table(results())
	require.Contains(t, table, "| bare grpc-go | ≥ 0.4× | 0.25× | 0.214–0.289 | missed |")
	require.Contains(t, table, "| bare grpc-go | ≤ 1.6× | 1.5× | 1.4–1.6 | met |")
	require.Contains(t, table, "| ≤ 5 s | – | – | not measured |")
	require.Equal(t, len(result.Targets)+2, strings.Count(table, "\n"))
}

// Every value of every measure is in the figures, once.
func TestFigures(t *testing.T) {
	t.Parallel()
	figures := Figures(results())
	require.Contains(t, figures, "| flood | – | per_second | bare | 400,000 | 380,000–420,000 | 3 |")
	require.Contains(t, figures, "| growth-vms | 1,000 | command_cpu_us | controller | 122 | 115–130 | 2 |")
	require.Equal(t, 2+6, strings.Count(figures, "\n"))
}

// A figure has three significant digits.
func TestFigure(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 0.01234: "0.0123", 1: "1", 1.5: "1.5", 12.345: "12.3", 999.6: "1,000", 123456: "123,456", 1e6: "1,000,000",
	} {
		require.Equal(t, want, figure(v))
	}
}

// Plots are drawn only of existing results; they are valid XML and contain the figures.
func TestPlots(t *testing.T) {
	t.Parallel()
	plots := Plots(results())
	require.Len(t, plots, 3)
	require.Equal(t, "flood", plots[0].Name)
	require.Equal(t, 2, strings.Count(plots[0].SVG, "<rect"), "a bar for each server")
	require.Contains(t, plots[0].SVG, ">100,000</text>")
	require.Contains(t, plots[0].SVG, ">heartbeats per second</text>")
	require.Equal(t, "growth-command", plots[2].Name)
	require.Equal(t, 2, strings.Count(plots[2].SVG, "<circle"), "a point for each size")
	require.Contains(t, plots[2].SVG, ">VMs (logarithmic)</text>")
	require.Contains(t, plots[2].SVG, ">µs of the server&#39;s CPU per command</text>")
	for _, p := range plots {
		requireDrawn(t, p)
		require.Contains(t, p.Says, "better", "the direction is given")
	}
}

// requireDrawn checks that a plot is valid XML without invalid numbers.
func requireDrawn(t *testing.T, p Plot) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(p.SVG))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, p.Name)
	}
	require.NotContains(t, p.SVG, "NaN", p.Name)
}

// Text around the generated part of a page is kept, however often the page is generated.
func TestWriteKeepsThePage(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(page, []byte("# Speed\n\nBefore.\n\n"+resultsPart.begin+"\nold\n"+resultsPart.end+"\n\nAfter.\n\n"+figuresPart.empty()), 0o600))
	require.NoError(t, Write(results(), page))
	first, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^# Speed\n\nBefore\.\n.*0\.25×.*\nAfter\.\n.*### All figures.*\n$`, string(first))
	require.NotContains(t, string(first), "old")
	require.NoError(t, Write(results(), page))
	second, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, string(first), string(second))
	require.FileExists(t, filepath.Join(filepath.Dir(page), "performance", "flood.svg"))
}

// The project's own page has both generated parts, with their commits, and all of its
// plots.
func TestPublishedPage(t *testing.T) {
	t.Parallel()
	docs := filepath.Join("..", "..", "..", "docs")
	content, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	require.NoError(t, err)
	for _, p := range []part{resultsPart, soakPart} {
		_, rest, _ := strings.Cut(string(content), p.begin)
		generated, _, ended := strings.Cut(rest, p.end)
		require.True(t, ended, p.begin)
		require.Regexp(t, "at commit `[0-9a-f]{12}`", generated)
		require.NotContains(t, generated, "not measured")
	}
	plots, err := filepath.Glob(filepath.Join(docs, "performance", "*.svg"))
	require.NoError(t, err)
	require.NotEmpty(t, plots)
	for _, plot := range plots {
		require.Contains(t, string(content), "(performance/"+filepath.Base(plot)+")")
	}
	require.Equal(t, len(plots), strings.Count(string(content), "](performance/"))
}

// A page without the marks is rejected and not changed; a missing page is created.
func TestWriteNeedsTheMarks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page := filepath.Join(dir, "a.md")
	require.NoError(t, os.WriteFile(page, []byte(resultsPart.end+"\n"+resultsPart.begin), 0o600))
	require.ErrorContains(t, Write(results(), page), "must have the lines "+resultsPart.begin)
	require.NoError(t, Write(results(), filepath.Join(dir, "b.md")))
	require.FileExists(t, filepath.Join(dir, "b.md"))
}
