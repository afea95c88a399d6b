package result

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func sample(measure, server string, run int, values map[string]float64) Sample {
	return Sample{Measure: measure, Server: server, Run: run, Values: values}
}

func named(t *testing.T, name string) Target {
	t.Helper()
	for _, target := range Targets {
		if target.Name == name {
			return target
		}
	}
	require.FailNow(t, "no such target", name)
	return Target{}
}

// Ratios are computed within a run, not of medians: what slows down a whole run cancels
// out.
func TestRatioIsWithinARun(t *testing.T) {
	t.Parallel()
	r := Results{Samples: []Sample{
		sample("idle", "bare", 1, map[string]float64{"kib_per_stream": 40}),
		sample("idle", "controller", 1, map[string]float64{"kib_per_stream": 60}),
		sample("idle", "controller", 2, map[string]float64{"kib_per_stream": 20}),
		sample("idle", "bare", 2, map[string]float64{"kib_per_stream": 10}),
	}}
	target := named(t, "RSS per idle stream, 10,000 streams")
	s := target.Of(r)
	require.Equal(t, Spread{Median: 1.75, Min: 1.5, Max: 2}, s)
	require.Equal(t, Missed, target.Judge(s))
}

// The round trip is compared with the bare server's plus two syncs of the same run.
func TestRoundTripCountsTwoSyncs(t *testing.T) {
	t.Parallel()
	r := Results{Samples: []Sample{
		sample("round-trip", "bare", 1, map[string]float64{"p50_us": 200, "fsync_us": 999}),
		sample("round-trip", "controller", 1, map[string]float64{"p50_us": 1200, "fsync_us": 400}),
	}}
	require.InDelta(t, 1.2, SpreadOf(roundTrip(r)).Median, 1e-9)
	require.InDelta(t, 200, r.Samples[0].Values["p50_us"], 0, "samples are not changed")
}

// A value equal to the bound meets the target.
func TestJudge(t *testing.T) {
	t.Parallel()
	least := Target{Must: 5}
	most := Target{Must: 30, AtMost: true}
	for _, test := range []struct {
		target Target
		median float64
		want   Verdict
	}{
		{least, 4.9, Missed},
		{least, 5, Met},
		{least, 15, Met},
		{most, 30.1, Missed},
		{most, 30, Met},
		{most, 10, Met},
	} {
		require.Equal(t, test.want, test.target.Judge(Spread{Median: test.median}), "%+v", test)
	}
	require.Equal(t, NotMeasured, least.Judge(SpreadOf(nil)))
}

// Every target has a bound and a unique name, and is not measured without results.
func TestTargetsAreSound(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, target := range Targets {
		require.Positive(t, target.Must, target.Name)
		require.False(t, names[target.Name], target.Name)
		names[target.Name] = true
		require.Equal(t, NotMeasured, target.Judge(target.Of(Results{})), target.Name)
	}
}

// Results are read as they were written.
func TestResultsInAFile(t *testing.T) {
	t.Parallel()
	r := Results{
		Meta:    Meta{Command: "bench run", CPUs: 2},
		Samples: []Sample{{Measure: "growth-vms", Server: "bare", Run: 1, At: 100, Values: map[string]float64{"x": 1}}},
	}
	path := filepath.Join(t.TempDir(), "r.json")
	require.NoError(t, r.Write(path))
	got, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, []int{100}, got.Sizes("growth-vms"))
	require.Equal(t, []float64{1}, got.Of("growth-vms", "bare", "x", 100))
	require.Empty(t, got.Of("growth-vms", "bare", "x", 0))
}

// Results of several files are combined if they are of the same commit.
func TestReadAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, commit string, s Sample) string {
		path := filepath.Join(dir, name)
		require.NoError(t, Results{Meta: Meta{Command: name, Commit: commit}, Samples: []Sample{s}}.Write(path))
		return path
	}
	flood := sample("flood", "bare", 1, map[string]float64{"per_second": 1})
	idle := sample("idle", "bare", 1, map[string]float64{"kib_per_stream": 2})
	a, b, other := write("a", "c1", flood), write("b", "c1", idle), write("other", "c2", idle)
	r, err := ReadAll([]string{a, b})
	require.NoError(t, err)
	require.Equal(t, []Sample{flood, idle}, r.Samples)
	require.Equal(t, "a`, `b", r.Meta.Command)
	_, err = ReadAll([]string{a, other})
	require.ErrorContains(t, err, "the commit must be that of")
	_, err = ReadAll([]string{a, b, write("again", "c1", flood)})
	require.ErrorContains(t, err, "the measure flood must not be in two files")
	_, err = ReadAll([]string{a, filepath.Join(dir, "none")})
	require.Error(t, err)
}
