package faults

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/app"
	"github.com/mig-controller/mig-controller/internal/cli"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// tested is what is built and run here. It is not called; the reference makes the go
// command rerun the tests, instead of using a cached result, when anything in it has
// changed.
var tested = []any{app.Main, cli.Main, sim.DefaultConfig}

// programs are the programs that the tests run, or why the build failed.
var programs struct {
	dir string
	err error
}

func TestMain(m *testing.M) {
	flag.Parse()
	// Scenarios wait most of the time.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs.dir = dir
	// Without the race detector, even if the tests use it: many processes are started here.
	build := exec.CommandContext(context.Background(), "go", "build", "-o", dir+"/",
		"../../cmd/controller", "../../cmd/migletsim", "../../cmd/migctl")
	out, err := build.CombinedOutput()
	if err != nil {
		programs.err = fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	m.Run()
}

// program returns the path of a program of the project.
func program(t *testing.T, name string) string {
	t.Helper()
	require.NotEmpty(t, tested)
	require.NoError(t, programs.err)
	return filepath.Join(programs.dir, name)
}

// scenarios are failure scenarios by their names in docs/faults.md. One that the operating
// system does not support is nil.
type scenarios map[string]func(t *testing.T)

// What docs/faults.md says about each scenario is true.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, some := range []scenarios{quick, long} {
		for name, scenario := range some {
			if scenario == nil {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				t.Cleanup(func() { t.Logf("%s %s in %.0f s", outcome(t), name, time.Since(began).Seconds()) })
				scenario(t)
			})
		}
	}
}

// outcome is printed for people who wait: the testing package reports on subtests only when
// all have ended.
func outcome(t *testing.T) string {
	t.Helper()
	if t.Failed() {
		return "FAILED"
	}
	return "passed"
}

// docs/faults.md lists exactly the existing scenarios, except those excluded by the build
// tag.
func TestDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/faults.md")
	require.NoError(t, err)
	documented := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| (quick|long) \\|").FindAllSubmatch(doc, -1) {
		documented[string(row[2])] = append(documented[string(row[2])], string(row[1]))
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(quick)), documented["quick"])
	if long != nil {
		require.ElementsMatch(t, slices.Collect(maps.Keys(long)), documented["long"])
	}
}
