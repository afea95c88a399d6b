package connectsuite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/known"
)

// TestMain acts as the suite when the arguments are those of a Tool.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--mode" {
		fmt.Fprintf(os.Stdout, "%s\nTotal cases: 1\n1 passed, 0 failed\n", strings.Join(os.Args[1:], " "))
		return
	}
	m.Run()
}

// Retries of single cases do not overwrite the log of the whole run.
func TestLog(t *testing.T) {
	t.Parallel()
	tool := Tool{Path: os.Args[0], Log: filepath.Join(t.TempDir(), "suite.log")}
	_, err := tool.Run(t.Context(), nil)
	require.NoError(t, err)
	whole, err := os.ReadFile(tool.Log)
	require.NoError(t, err)
	require.Contains(t, string(whole), "Total cases: 1")
	passes, err := tool.PassesWithin(t.Context(), 1, "case")
	require.NoError(t, err)
	require.True(t, passes)
	now, err := os.ReadFile(tool.Log)
	require.NoError(t, err)
	require.Equal(t, string(whole), string(now))
}

// The output of the suite becomes a verdict; output that cannot be parsed, or does not
// add up, is an error, not a pass.
func TestParse(t *testing.T) {
	t.Parallel()
	list := []known.Case{
		{ID: "A/**/uri", Outcome: known.Fails},
		{ID: "T/*/unary", Outcome: known.Races},
	}
	got, err := parse(`time=1 level=ERROR msg="call failed"
FAILED: A/TLS:true/uri was expected to fail but did not
FAILED: B/TLS:true/unary:
	connect error JSON: unexpected end of JSON input

INFO: A/TLS:false/uri failed (as expected):
	actual error {code: 5 (not_found)} does not match
INFO: T/TLS:true/unary failed (as expected):
	connect error JSON: unexpected end of JSON input

Total cases: 8
4 passed, 2 failed
Another 3 could not be run due to client timing out or exiting prematurely.
(Another 2 failed as expected due to being known failures/flakes.)
`, list)
	require.NoError(t, err)
	require.Equal(t, known.Verdict{
		Cases: 8, Passed: 4, Known: 2, Raced: []string{"T/TLS:true/unary"},
		Unexpected: []string{
			"A/TLS:true/uri passed: remove it from the list",
			"B/TLS:true/unary failed",
			"3 cases could not be run",
		},
	}, got)

	const allPassed = "Total cases: 8\n8 passed, 0 failed\n"
	got, err = parse(allPassed, append(list, known.Case{ID: "U/**", Outcome: known.Unsteady}))
	require.NoError(t, err)
	require.Equal(t, []string{"all unsteady cases passed: remove them from the list"}, got.Unexpected)
	got, err = parse(allPassed, list)
	require.NoError(t, err)
	require.Empty(t, got.Unexpected)

	for output, want := range map[string]string{
		"panic":                                  "the output of connectconformance does not end with its totals",
		"Total cases: 8\n4 passed, 0 failed\n":   "the output of connectconformance cannot be parsed",
		"Total cases: 8\n7 passed, 1 failed\n":   "the output of connectconformance cannot be parsed",
		"Total cases: 8\n8 passed, nothing else": "the output of connectconformance does not end with its totals",
	} {
		_, err := parse(output, list)
		require.EqualError(t, err, want)
	}
}
