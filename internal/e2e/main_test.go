package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// patience is how long a test waits for an expected event. It is long because the machine
// may be busy; a working controller never needs it.
const patience = time.Minute

// shared is used by the tests that need no controller of their own.
var shared *controller

func TestMain(m *testing.M) {
	if addr := os.Getenv(resetsAtKey); addr != "" {
		resetStreams(addr)
		return
	}
	goleak.VerifyTestMain(runner{m})
}

// runner runs the tests around the shared controller.
type runner struct{ m *testing.M }

// Run returns the exit status.
func (r runner) Run() int {
	flag.Parse()
	// The tests wait most of the time, so more of them than there are processors run in
	// parallel.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if shared, err = startController(context.Background(), testOptions(dir)); err != nil {
		return fail(err)
	}
	status := r.m.Run()
	if err := shared.end(); err != nil {
		return fail(err)
	}
	return status
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

var lastVM atomic.Int64

// newVM returns an unused VM id.
func newVM() string { return fmt.Sprintf("vm-%06d", lastVM.Add(1)) }

// await calls get until ok accepts the result, and returns it.
func await[T any](t *testing.T, what string, get func() T, ok func(T) bool) T {
	t.Helper()
	over := time.NewTimer(patience)
	defer over.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		v := get()
		if ok(v) {
			return v
		}
		select {
		case <-again.C:
		case <-over.C:
			require.FailNow(t, "timed out waiting for "+what, "got %.2000s", fmt.Sprint(v))
		}
	}
}

// receive receives an expected value.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "timed out waiting for "+what)
		panic("unreachable")
	}
}

// together calls do concurrently for 0 to n-1 and requires that none of the calls returns
// an error.
func together(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- do(i) }()
	}
	for range n {
		require.NoError(t, <-errs)
	}
}
