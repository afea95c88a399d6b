package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/app"
)

// program is what is built and run here. It is not called; the reference makes the go
// command rerun the tests, instead of using a cached result, when anything in it has
// changed.
var program = app.Main

// built is the controller that the tests run, or why the build failed.
var built struct {
	path string
	err  error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	built.path = filepath.Join(dir, "controller")
	// Without the race detector, even if the tests use it: such processes start slowly, and
	// many are started here.
	build := exec.CommandContext(context.Background(), "go", "build", "-o", built.path, "../../cmd/controller")
	out, err := build.CombinedOutput()
	if err != nil {
		built.err = fmt.Errorf("build the controller: %w\n%s", err, out)
	}
	m.Run()
}

// seeded returns the random source of a test. CRASH_SEED repeats an earlier run, except for
// the exact instruction at which a process is killed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("CRASH_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "CRASH_SEED must be a whole number")
	}
	t.Logf("CRASH_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
