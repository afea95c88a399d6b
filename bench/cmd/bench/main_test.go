package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/measure"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

// patience is how long the quick measures may take on a busy machine.
const patience = 4 * time.Minute

// program builds the bench.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bench")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// bench runs the bench to its end, in a directory from which it finds the repository.
func bench(t *testing.T, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "../.."
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // ProcessState has the result
	require.NoError(t, ctx.Err(), "the bench does not end: %s", errs.String())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Every measure runs on every server, its results are written, a report can be generated
// from them, and nothing is left behind.
func TestQuick(t *testing.T) {
	t.Parallel()
	bin, dir := program(t), t.TempDir()
	file := filepath.Join(t.TempDir(), "bench.json")
	_, stderr, status := bench(t, bin, "run", "-quick", "-dir", dir, "-out", file)
	require.Zero(t, status, stderr)
	r, err := result.Read(file)
	require.NoError(t, err)
	require.True(t, r.Meta.Quick)
	measured := map[string]bool{}
	for _, s := range r.Samples {
		measured[s.Measure] = true
		require.NotEmpty(t, s.Values, "%+v", s)
	}
	for _, name := range measure.Names() {
		require.True(t, measured[name], name)
	}
	for _, target := range result.Targets {
		require.NotEqual(t, result.NotMeasured, target.Judge(target.Of(r)), target.Name)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	page := filepath.Join(t.TempDir(), "performance.md")
	stdout, stderr, status := bench(t, bin, "report", "-in", file, "-page", page)
	require.Zero(t, status, stderr)
	require.Contains(t, stdout, "durable commands/s")
	require.FileExists(t, page)
}

// A server that crashes fails the bench, with a message.
func TestDeadServer(t *testing.T) {
	t.Parallel()
	_, stderr, status := bench(t, program(t), "run", "-quick", "-only", "reconnect",
		"-controller", "/bin/false", "-dir", t.TempDir(), "-out", filepath.Join(t.TempDir(), "bench.json"))
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "reconnect on controller, run 1: false ended unexpectedly (exit status 1)")
}

// An unknown measure is rejected, with the list of existing ones.
func TestUnknownMeasure(t *testing.T) {
	t.Parallel()
	_, stderr, status := bench(t, program(t), "run", "-only", "speed", "-controller", "/bin/false",
		"-out", filepath.Join(t.TempDir(), "bench.json"))
	require.Equal(t, 1, status)
	require.Contains(t, stderr, `unknown measure "speed"; available are [paced`)
}

// memoryDir returns a directory in memory, if possible. The runtime starts a thread when a
// busy disk blocks all others, which looks like a trend within seconds.
func memoryDir(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "bench") //nolint:usetesting // t.TempDir is not in memory
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// A soak survives a kill, replaces VMs and passes. The result says how it was made, and a
// page can be generated from it.
func TestSoak(t *testing.T) {
	t.Parallel()
	bin, file := program(t), filepath.Join(t.TempDir(), "soak.json")
	stdout, stderr, status := bench(t, bin, "soak", "-vms", "50", "-for", "6s", "-kills", "1", "-beat", "1s",
		"-drops", "5", "-replace", "5", "-every", "200ms", "-dir", memoryDir(t), "-out", file)
	require.Zero(t, status, stderr)
	require.Contains(t, stdout, "| goroutines |")
	v, err := soak.Read(file)
	require.NoError(t, err)
	require.Contains(t, v.Meta.Command, "bench soak -vms 50 ")
	require.Len(t, v.Back, 1)
	end := v.Samples[len(v.Samples)-1]
	require.EqualValues(t, 50, end.Sessions)
	require.Positive(t, end.Goroutines)
	require.Positive(t, end.Replaced)
	require.Positive(t, end.Dropped)

	page := filepath.Join(t.TempDir(), "performance.md")
	_, stderr, status = bench(t, bin, "report", "-soak", file, "-page", page)
	require.Zero(t, status, stderr)
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(text), "## A soak of 6s\n")
}
