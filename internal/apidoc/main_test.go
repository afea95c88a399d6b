package apidoc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/app"
)

// patience is how long a test waits for a condition.
const patience = 60 * time.Second

// program is the program that the tests build and run. It is not called: the reference makes
// the go command rerun the tests, instead of using a cached result, when the program has
// changed.
var program = app.Main

// built is the controller that the tests run, or the error of building it.
var built struct {
	path string
	err  error
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(runner{m}) }

// runner runs the tests once the controller is built.
type runner struct{ m *testing.M }

// Run returns the exit status.
func (r runner) Run() int {
	dir, err := os.MkdirTemp("", "apidoc")
	if err != nil {
		fmt.Fprintln(os.Stderr, "apidoc:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	built.path = filepath.Join(dir, "controller")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", built.path, "../../cmd/controller")
	if out, err := build.CombinedOutput(); err != nil {
		built.err = fmt.Errorf("build the controller: %w\n%s", err, out)
	}
	return r.m.Run()
}

// startController starts a controller on free ports with three simulated agents,
// the first of them ideal, and returns its HTTP address. It is stopped when the
// test is over.
func startController(t *testing.T) string {
	t.Helper()
	require.NotNil(t, program)
	require.NoError(t, built.err)
	cmd := exec.CommandContext(t.Context(), built.path, "--simulate=3", "--data-dir="+t.TempDir(),
		"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--log-format=json")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTROLLER_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	addr := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		readAddress(log, addr)
		_ = cmd.Wait() // stopped by the test: the result does not matter
	}()
	t.Cleanup(func() { <-ended })
	select {
	case a := <-addr:
		return a
	case <-ended:
		require.FailNow(t, "the controller ended instead of starting")
	case <-time.After(patience):
		require.FailNow(t, "the controller does not start")
	}
	return ""
}

// readAddress reads a controller's log to its end and sends the address.
func readAddress(log io.Reader, addr chan<- string) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var started struct {
			Message string `json:"msg"`
			HTTP    string `json:"http_addr"`
		}
		if json.Unmarshal(lines.Bytes(), &started) == nil && started.Message == "controller started" {
			addr <- started.HTTP
		}
	}
}

// loadSchema returns the schema of this module.
func loadSchema(t *testing.T) Schema {
	t.Helper()
	s, err := Load(t.Context(), filepath.Join("..", "..", "proto"))
	require.NoError(t, err)
	return s
}

// requireCommitted compares a generated file with the committed one. With UPDATE_API=1 in the
// environment it writes the file instead.
func requireCommitted(t *testing.T, path, want string) {
	t.Helper()
	if os.Getenv("UPDATE_API") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "update it with: make api")
}
