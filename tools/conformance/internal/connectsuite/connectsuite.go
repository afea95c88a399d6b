// Package connectsuite owns runs of the connectrpc conformance suite, whose clients
// make RPCs by Connect, gRPC and gRPC-Web.
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

// Tool is the program.
type Tool struct {
	Path string
	// Config is the file that says what a server supports.
	Config string
	// Server is the command that serves what the suite calls.
	Server []string
	// Log is the file for the output of the latest run of all cases.
	Log string
}

// The suite runs beside the server on the same processors, and some of its cases are
// about time.
var sparing = []string{"--max-servers", "2", "--parallel", "8"}

// Run tests the server, by only the cases that are given if any are, and compares the
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
	said, failed := exec.CommandContext(ctx, t.Path, args...).CombinedOutput() //nolint:gosec // built from the pinned source
	if ctx.Err() != nil {
		return known.Verdict{}, fmt.Errorf("connectconformance: %w", context.Cause(ctx))
	}
	if len(only) == 0 { // A case that is tried again must not replace the whole.
		if err := os.WriteFile(t.Log, said, 0o600); err != nil {
			return known.Verdict{}, err
		}
	}
	v, err := parse(string(said), list)
	if err != nil {
		return v, fmt.Errorf("%w (%w): %s", err, failed, said)
	}
	if failed != nil && len(v.Unexpected) == 0 {
		return v, fmt.Errorf("connectconformance: %w: %s", failed, said)
	}
	return v, nil
}

var (
	totals = regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, (\d+) failed$`)
	notRun = regexp.MustCompile(`(?m)^Another (\d+) could not be run`)
	// asKnown has the name of a case that failed and is on one of the lists.
	asKnown = regexp.MustCompile(`(?m)^INFO: (.+) failed \(as expected\):$`)
	// unlisted has the name of a case that failed, or passed although it should not.
	unlisted = regexp.MustCompile(`(?m)^FAILED: (.+?)(:| was expected to fail but did not)$`)
)

// parse returns what the suite has said.
func parse(said string, list []known.Case) (known.Verdict, error) {
	sums := totals.FindStringSubmatch(said)
	if sums == nil {
		return known.Verdict{}, errors.New("connectconformance did not end with its totals")
	}
	var v known.Verdict
	v.Cases, v.Passed = number(sums[1]), number(sums[2])
	unsteady := 0
	for _, m := range asKnown.FindAllStringSubmatch(said, -1) {
		v.Known++
		switch outcome(list, m[1]) {
		case known.Races:
			v.Raced = append(v.Raced, m[1])
		case known.Unsteady:
			unsteady++
		case known.Fails:
		}
	}
	// One of them may pass at times, but not all.
	if unsteady == 0 && slices.ContainsFunc(list, func(c known.Case) bool { return c.Outcome == known.Unsteady }) {
		v.Unexpected = append(v.Unexpected, "all unsteady cases passed: take them off the list")
	}
	for _, m := range unlisted.FindAllStringSubmatch(said, -1) {
		if m[2] == ":" {
			v.Unexpected = append(v.Unexpected, m[1]+" failed")
		} else {
			v.Unexpected = append(v.Unexpected, m[1]+" passed: take it off the list")
		}
	}
	if m := notRun.FindStringSubmatch(said); m != nil {
		v.Unexpected = append(v.Unexpected, m[1]+" cases could not be run")
	}
	if v.Cases != v.Passed+v.Known+number(sums[3]) || number(sums[3]) > len(v.Unexpected) {
		return v, errors.New("connectconformance has said something that is not understood")
	}
	return v, nil
}

// outcome returns what the list says of a case.
func outcome(list []known.Case, id string) known.Outcome {
	if i := slices.IndexFunc(list, func(c known.Case) bool { return c.Matches(id) }); i >= 0 {
		return list[i].Outcome
	}
	return ""
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1 // too long for a number: it fits no sum
	}
	return n
}

// PassesWithin reports whether a case passes when it is tried so many times.
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
