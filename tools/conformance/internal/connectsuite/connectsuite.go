// Package connectsuite owns runs of the connectrpc conformance suite, whose clients use
// Connect, gRPC and gRPC-Web.
package connectsuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/known"
)

// Tool is the suite's program.
type Tool struct {
	Path string
	// Config is the file with the features that a server supports.
	Config string
	// Server is the command that runs the server under test.
	Server []string
	// Log is the file for the output of the latest run of all cases.
	Log string
}

// The suite runs on the same processors as the server, and some of its cases depend on
// timing.
var sparing = []string{"--max-servers", "2", "--parallel", "8"}

// Run tests the server, with only the given cases if there are any, and compares the
// results with the list.
func (t Tool) Run(ctx context.Context, list []known.Case, only ...string) (known.Verdict, error) {
	args := append([]string{"--mode", "server", "--conf", t.Config}, sparing...)
	for _, id := range only {
		args = append(args, "--run", id)
	}
	for _, c := range list {
		if c.Outcome == known.Fails {
			args = append(args, "--known-failing", c.ID)
		} else {
			args = append(args, "--known-flaky", c.ID)
		}
	}
	args = append(append(args, "--"), t.Server...)
	output, failed := exec.CommandContext(ctx, t.Path, args...).CombinedOutput() //nolint:gosec // built from the pinned source
	if ctx.Err() != nil {
		return known.Verdict{}, fmt.Errorf("connectconformance: %w", context.Cause(ctx))
	}
	if len(only) == 0 { // Retries of single cases must not overwrite the log.
		if err := os.WriteFile(t.Log, output, 0o600); err != nil {
			return known.Verdict{}, err
		}
	}
	v, err := parse(string(output), list)
	if err != nil {
		return v, fmt.Errorf("%w (%w): %s", err, failed, output)
	}
	if failed != nil && len(v.Unexpected) == 0 {
		return v, fmt.Errorf("connectconformance: %w: %s", failed, output)
	}
	return v, nil
}

var (
	totals = regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, (\d+) failed$`)
	notRun = regexp.MustCompile(`(?m)^Another (\d+) could not be run`)
	// asKnown matches a case that failed and is on one of the lists.
	asKnown = regexp.MustCompile(`(?m)^INFO: (.+) failed \(as expected\):$`)
	// unlisted matches a case that failed, or passed unexpectedly.
	unlisted = regexp.MustCompile(`(?m)^FAILED: (.+?)(:| was expected to fail but did not)$`)
)

// parse parses the output of the suite.
func parse(output string, list []known.Case) (known.Verdict, error) {
	sums := totals.FindStringSubmatch(output)
	if sums == nil {
		return known.Verdict{}, errors.New("the output of connectconformance does not end with its totals")
	}
	var v known.Verdict
	v.Cases, v.Passed = number(sums[1]), number(sums[2])
	unsteady := 0
	for _, m := range asKnown.FindAllStringSubmatch(output, -1) {
		v.Known++
		switch outcome(list, m[1]) {
		case known.Races:
			v.Raced = append(v.Raced, m[1])
		case known.Unsteady:
			unsteady++
		case known.Fails:
		}
	}
	// Some of them may pass occasionally, but not all.
	if unsteady == 0 && slices.ContainsFunc(list, func(c known.Case) bool { return c.Outcome == known.Unsteady }) {
		v.Unexpected = append(v.Unexpected, "all unsteady cases passed: remove them from the list")
	}
	for _, m := range unlisted.FindAllStringSubmatch(output, -1) {
		if m[2] == ":" {
			v.Unexpected = append(v.Unexpected, m[1]+" failed")
		} else {
			v.Unexpected = append(v.Unexpected, m[1]+" passed: remove it from the list")
		}
	}
	if m := notRun.FindStringSubmatch(output); m != nil {
		v.Unexpected = append(v.Unexpected, m[1]+" cases could not be run")
	}
	if v.Cases != v.Passed+v.Known+number(sums[3]) || number(sums[3]) > len(v.Unexpected) {
		return v, errors.New("the output of connectconformance cannot be parsed")
	}
	return v, nil
}

// outcome returns the outcome of a case according to the list.
func outcome(list []known.Case, id string) known.Outcome {
	if i := slices.IndexFunc(list, func(c known.Case) bool { return c.Matches(id) }); i >= 0 {
		return list[i].Outcome
	}
	return ""
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1 // too long for a number: it matches no sum
	}
	return n
}

// PassesWithin reports whether a case passes in one of this many tries.
func (t Tool) PassesWithin(ctx context.Context, tries int, id string) (bool, error) {
	for range tries {
		v, err := t.Run(ctx, nil, id)
		if err != nil {
			return false, err
		}
		if v.Cases != 1 {
			return false, fmt.Errorf("connectconformance ran %d cases for %s", v.Cases, strings.TrimSpace(id))
		}
		if v.Passed == 1 {
			return true, nil
		}
	}
	return false, nil
}
