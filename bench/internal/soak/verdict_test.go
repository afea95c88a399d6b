package soak

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// lives returns samples of two runs: in the second, memory changes from first to last.
func lives(first, last int64) []Sample {
	samples := []Sample{{RSS: 900 << 20, Goroutines: 900, Threads: 90, Files: 90}}
	for i := range int64(9) {
		rss := first + (last-first)*i/8
		samples = append(samples, Sample{Life: 1, RSS: rss << 20, Goroutines: 15_000 + rss, Threads: 10, Files: 50})
	}
	return samples
}

// The last run is evaluated by comparing its end with its beginning.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		first, last int64
		fault       string
	}{
		{"flat", 100, 100, ""},
		{"a little more", 100, 110, ""},
		{"a leak", 100, 200, "memory (MiB) grew from 112 to 187"},
	} {
		r := &run{samples: lives(test.first, test.last), life: 1}
		v, err := r.judge()
		require.NoError(t, err, test.name)
		if test.fault == "" {
			require.NoError(t, v.Err(), test.name)
		} else {
			require.ErrorContains(t, v.Err(), test.fault, test.name)
		}
		require.Contains(t, v.Trends, Trend{"threads", 10, 10})
	}
}

// In a large fleet, counts must not grow by even one per replaced VM; in a small one, small
// differences are chance. Memory may grow more, and by 8 MiB in any fleet.
func TestFlat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		trend Trend
		want  bool
	}{
		{Trend{memory, 400, 459}, true},
		{Trend{memory, 400, 461}, false},
		{Trend{memory, 28, 36}, true},
		{Trend{memory, 28, 36.5}, false},
		{Trend{"goroutines", 15_000, 15_100}, true},
		{Trend{"goroutines", 15_375, 16_875}, false}, // one a second, for 2,250 s
		{Trend{"open files", 5400, 6900}, false},
		{Trend{"goroutines", 170, 190}, true},
		{Trend{"threads", 10, 11}, true},
		{Trend{"threads", 10, 12}, false},
	} {
		require.Equal(t, test.want, test.trend.Flat(), "%+v", test.trend)
	}
}

// An operation that failed, or was never done, fails the soak; and so do VMs that the
// controller has lost or does not know.
func TestJudgeWhatWasDone(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost its way")
	for _, test := range []struct {
		name   string
		change func(*run)
		fault  string
	}{
		{"all is well", func(*run) {}, ""},
		{"a command failed", func(r *run) { r.commands.note(lost) }, "1 commands failed, the latest: lost its way"},
		{"a VM did not come", func(r *run) { r.replaced.note(lost) }, "1 VMs failed, the latest: lost its way"},
		{"no command", func(r *run) { r.commands.done.Store(0) }, "no commands were done"},
		{"no VM replaced", func(r *run) { r.replaced.done.Store(0); r.known = 50 }, "no VMs were replaced"},
		{"VMs unknown", func(r *run) { r.known = 50 }, "the controller knows 50 VMs, but there were 53"},
	} {
		r := &run{Options: Options{VMs: 50, Commands: 1, Replace: 1}, samples: lives(100, 100), life: 1, known: 53}
		r.commands.done.Store(5)
		r.replaced.done.Store(3)
		test.change(r)
		v, err := r.judge()
		require.NoError(t, err, test.name)
		if test.fault == "" {
			require.NoError(t, v.Err(), test.name)
		} else {
			require.EqualError(t, v.Err(), "the soak did not pass: "+test.fault, test.name)
		}
	}
}

// Too short a run is not evaluated.
func TestJudgeNeedsSamples(t *testing.T) {
	t.Parallel()
	r := &run{samples: lives(100, 100)[:5], life: 1}
	_, err := r.judge()
	require.ErrorContains(t, err, "4 samples")
}

// A verdict is read as it was written; one that does not say how it was made, or is
// incomplete, is rejected.
func TestRead(t *testing.T) {
	t.Parallel()
	whole := Verdict{
		Meta: result.Meta{Command: "bench soak", Commit: "abc"}, VMs: 5, For: time.Hour, Samples: lives(1, 1),
		Trends: []Trend{{"threads", 10, 10}}, Back: []time.Duration{time.Second}, Faults: []string{"late"},
	}
	path := filepath.Join(t.TempDir(), "soak.json")
	require.NoError(t, whole.Write(path))
	got, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, whole, got)
	for field, change := range map[string]func(*Verdict){
		"meta.command": func(v *Verdict) { v.Meta.Command = "" },
		"meta.commit":  func(v *Verdict) { v.Meta.Commit = "" },
		"trends":       func(v *Verdict) { v.Trends = nil },
	} {
		v := whole
		change(&v)
		require.NoError(t, v.Write(path))
		_, err := Read(path)
		require.ErrorContains(t, err, field+" must not be empty")
	}
}
