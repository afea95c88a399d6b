package known_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/known"
)

var list = []known.Case{
	{ID: "http2/1/1", Outcome: known.Fails, Reference: known.Same, Why: "because"},
	{ID: "http2/1/2", Outcome: known.Races, Reference: known.Same, Why: "because"},
	{ID: "http2/1/3", Outcome: known.Fails, Reference: known.SamePlaintext, Why: "because"},
}

// Failures that are not on the list are unexpected, and so are entries of the list that
// do not occur.
func TestJudge(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		results map[string]bool
		want    known.Verdict
	}{
		"as listed": {
			results: map[string]bool{"http2/1/1": false, "http2/1/2": true, "http2/1/3": false, "http2/2/1": true},
			want:    known.Verdict{Cases: 4, Passed: 2, Known: 2},
		},
		"the race was lost": {
			results: map[string]bool{"http2/1/1": false, "http2/1/2": false, "http2/1/3": false},
			want:    known.Verdict{Cases: 3, Known: 3, Raced: []string{"http2/1/2"}},
		},
		"an unlisted case fails": {
			results: map[string]bool{"http2/1/1": false, "http2/1/2": true, "http2/1/3": false, "http2/2/1": false},
			want:    known.Verdict{Cases: 4, Passed: 1, Known: 2, Unexpected: []string{"http2/2/1 failed"}},
		},
		"a listed case passes": {
			results: map[string]bool{"http2/1/1": true, "http2/1/2": true, "http2/1/3": false},
			want:    known.Verdict{Cases: 3, Passed: 1, Known: 1, Unexpected: []string{"http2/1/1 passed: remove it from the list"}},
		},
		"a listed case does not run": {
			results: map[string]bool{"http2/1/2": true, "http2/1/3": false},
			want: known.Verdict{
				Cases: 2, Passed: 1, Known: 1,
				Unexpected: []string{"http2/1/1 is on the list, but was not run"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, known.Judge(test.results, list))
		})
	}
}

// net/http is compared with the part of the list that applies to it.
func TestOfReference(t *testing.T) {
	t.Parallel()
	require.Equal(t, list, known.OfReference(list, false))
	require.Equal(t, list[:2], known.OfReference(list, true))
}

func TestRead(t *testing.T) {
	t.Parallel()
	got, err := known.Read(strings.NewReader("# why\n\n http2/1/1  fails\tsame   because of  it\n"))
	require.NoError(t, err)
	require.Equal(t, []known.Case{{ID: "http2/1/1", Outcome: known.Fails, Reference: known.Same, Why: "because of  it"}}, got)

	for line, want := range map[string]string{
		"http2/1/1  fails  same":                "line 1: want a case, its outcome, its reference, and the reason",
		"http2/1/1  passes  same  because":      `line 1: http2/1/1: unknown outcome: "passes"`,
		"http2/1/1  fails  here  because":       `line 1: http2/1/1: unknown reference: "here"`,
		"a b  fails  -  a\n#\na b  races  -  b": "line 3: a b is listed twice",
	} {
		_, err := known.Read(strings.NewReader(line))
		require.EqualError(t, err, want)
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, id string
		want        bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/b/c", false},
		{"a/b/c", "a/b", false},
		{"a/*/c", "a/b/c", true},
		{"a/*", "a/b/c", false},
		{"a/**/c", "a/c", true},
		{"a/**/c", "a/b/b/c", true},
		{"a/**/c", "a/b/b", false},
		{"a/b*", "a/bc", false},
	} {
		require.Equal(t, test.want, known.Case{ID: test.pattern}.Matches(test.id), "%s, %s", test.pattern, test.id)
	}
}

// The project's lists are valid.
func TestLists(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"../../h2spec-known.txt", "../../connect-known.txt"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := known.Read(bytes.NewReader(text))
		require.NoError(t, err, path)
		require.NotEmpty(t, got, path)
	}
}
