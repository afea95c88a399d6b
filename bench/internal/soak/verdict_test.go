package soak

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// lives are samples of two lives: in the second, memory goes from first to last.
func lives(first, last int64) []Sample {
	samples := []Sample{{RSS: 900 << 20, Threads: 90, Files: 90}}
	for i := range int64(9) {
		rss := first + (last-first)*i/8
		samples = append(samples, Sample{Life: 1, RSS: rss << 20, Threads: 10, Files: 50})
	}
	return samples
}

// The last life is judged, by how its end compares with its beginning.
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
		r.done.Store(1)
		v, err := r.judge()
		require.NoError(t, err, test.name)
		if test.fault == "" {
			require.NoError(t, v.Err(), test.name)
		} else {
			require.ErrorContains(t, v.Err(), test.fault, test.name)
		}
		require.Contains(t, v.String(), "| threads | 10 | 10 | true |")
	}
}

// A command that failed while the controller was up fails the soak.
func TestJudgeCommands(t *testing.T) {
	t.Parallel()
	r := &run{samples: lives(100, 100), life: 1}
	r.done.Store(5)
	r.failed.Store(1)
	fault := errors.New("lost its way")
	r.fault.Store(&fault)
	v, err := r.judge()
	require.NoError(t, err)
	require.ErrorContains(t, v.Err(), "1 commands failed, the latest: lost its way")
}

// Too short a life is not judged at all.
func TestJudgeNeedsSamples(t *testing.T) {
	t.Parallel()
	r := &run{samples: lives(100, 100)[:5], life: 1}
	_, err := r.judge()
	require.ErrorContains(t, err, "4 samples")
}
