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

// patience is how long a test waits for what is to happen at once. It is long
// because the machine may be busy; nothing that works takes it.
const patience = 20 * time.Second

// shared serves the tests that need no controller of their own.
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
	// The tests wait for most of their time: more of them than there are
	// processors run at once.
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

// newVM returns the id of a VM that no other test has.
func newVM() string { return fmt.Sprintf("vm-%06d", lastVM.Add(1)) }

// await asks get until ok likes the answer, and returns it.
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
			require.FailNow(t, "waited in vain for "+what, "it is %.2000s", fmt.Sprint(v))
		}
	}
}

// receive takes a value that is about to come.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited in vain for "+what)
		panic("unreachable")
	}
}

// together calls do for 0 to n-1 at the same time and requires that none of
// them returns an error.
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
