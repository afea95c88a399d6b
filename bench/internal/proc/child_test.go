package proc

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *Child {
	t.Helper()
	c, err := Start(filepath.Join(t.TempDir(), "log"), "/bin/sh", "-c", script)
	require.NoError(t, err)
	t.Cleanup(c.Kill)
	return c
}

func awaitEnd(t *testing.T, ctx context.Context) error { //nolint:revive // helpers take t first
	t.Helper()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the context does not end")
		return nil
	}
}

// A measure ends when its server dies, with the end of the server's log.
func TestWatchTellsOfADeath(t *testing.T) {
	t.Parallel()
	c := start(t, "echo out of luck; exit 3")
	ctx, stop := c.Watch(t.Context())
	defer stop()
	err := awaitEnd(t, ctx)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "out of luck")
}

// A server that is ended on purpose is not a failure.
func TestWatchKeepsSilentOfAnEnding(t *testing.T) {
	t.Parallel()
	c := start(t, "exec sleep 60")
	ctx, stop := c.Watch(t.Context())
	c.Kill()
	require.NoError(t, ctx.Err())
	stop()
}

// Stop sends SIGTERM first, and reports an unclean exit.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ script, says string }{
		{"trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", ""},
		{"trap 'echo broken; exit 1' TERM; echo ready; while :; do sleep 0.01; done", "broken"},
	} {
		c := start(t, test.script)
		require.Eventually(t, func() bool { return c.logTail() != "" }, 20*time.Second, time.Millisecond)
		err := c.Stop()
		if test.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.says)
		}
	}
}

// A server is measured with its defaults, whatever the environment contains.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"CONTROLLER_GRPC_ADDR", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG", "GOLIKE"} {
		t.Setenv(name, "1")
	}
	c := start(t, "env | grep -E '^(GO|CONTROLLER_)'; echo end; exec sleep 60")
	require.Eventually(t, func() bool { return strings.HasSuffix(c.logTail(), "end\n") }, 20*time.Second, time.Millisecond)
	require.Contains(t, c.logTail(), "GOLIKE=1\n", "all other variables are kept")
	for _, name := range []string{"CONTROLLER_", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		require.NotContains(t, c.logTail(), name)
	}
}

// More connections than any machine allows are rejected with an error that names the limit.
func TestNeedConnections(t *testing.T) {
	t.Parallel()
	require.NoError(t, NeedConnections(1))
	require.ErrorContains(t, NeedConnections(1<<40), "raise it with ulimit -Hn")
}
