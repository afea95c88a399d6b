package crash

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for an expected event.
const patience = 20 * time.Second

// controller is one run of a controller.
type controller struct {
	operator
	cmd *exec.Cmd
	log *logTail
	// dir is the data directory as the controller sees it.
	dir        string
	http, grpc string
	// exited is closed when the process has ended.
	exited chan struct{}
	killed bool // by the test
}

// start starts a controller on free ports and waits until it serves.
func start(t *testing.T, dir string) *controller {
	t.Helper()
	return launch(t, dir, command(t, dir))
}

// command returns a controller that is not yet started.
func command(t *testing.T, dir string, options ...string) *exec.Cmd {
	t.Helper()
	args := []string{"--data-dir=" + dir, "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--log-format=json"}
	return bare(t, append(args, options...)...)
}

// bare returns a controller with only these options.
func bare(t *testing.T, options ...string) *exec.Cmd {
	t.Helper()
	require.NotNil(t, program)
	require.NoError(t, built.err)
	cmd := exec.CommandContext(t.Context(), built.path, options...)
	cmd.Env = cleanEnvironment()
	cmd.SysProcAttr = dieWithTests()
	return cmd
}

// cleanEnvironment is the environment of this process without variables that set options.
func cleanEnvironment() []string {
	var kept []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTROLLER_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// launch starts cmd, which runs a controller on dir, and waits until it serves. If it is
// still running when the test ends, it is killed.
func launch(t *testing.T, dir string, cmd *exec.Cmd) *controller {
	t.Helper()
	log := newLogTail()
	cmd.Stderr = log
	return launchLogged(t, dir, cmd, log)
}

// launchLogged is launch for a process that itself writes its log to log.
func launchLogged(t *testing.T, dir string, cmd *exec.Cmd, log *logTail) *controller {
	t.Helper()
	c := &controller{cmd: cmd, dir: dir, log: log, exited: make(chan struct{})}
	require.NoError(t, cmd.Start())
	go func() {
		defer close(c.exited)
		_ = cmd.Wait() // ProcessState has the result
	}()
	t.Cleanup(func() {
		if t.Failed() && !c.killed {
			t.Logf("the last lines of controller %d:\n%s", cmd.Process.Pid, c.log)
		}
		c.kill()
		c.hangUp()
	})
	select {
	case s := <-c.log.started:
		c.http, c.grpc = s.HTTP, s.GRPC
	case <-c.exited:
		require.FailNow(t, "the controller ended instead of starting", c.log.String())
	case <-time.After(patience):
		require.FailNow(t, "the controller does not start", c.log.String())
	}
	c.operator = newOperator("http://" + c.http)
	return c
}

// kill ends the process as a crash does, without any cleanup. It returns when the process
// has ended.
func (c *controller) kill() {
	c.killed = true
	_ = c.cmd.Process.Kill() // fails if it has already ended
	<-c.exited
}

// hasExited reports whether the process has ended.
func (c *controller) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// terminate asks the process to stop.
func (c *controller) terminate(t *testing.T) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
}

// ended waits for the end of the process and returns its status.
func (c *controller) ended(t *testing.T) int {
	t.Helper()
	select {
	case <-c.exited:
	case <-time.After(patience):
		require.FailNow(t, "the controller does not end", c.log.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// run runs a controller that exits by itself.
func run(t *testing.T, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	require.NoError(t, cmd.Start())
	impatient := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // ProcessState has the result
	require.True(t, impatient.Stop(), "the controller does not end: %s", err.String())
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// logTail receives the JSON log of a controller and keeps its last lines.
type logTail struct {
	started chan startRecord // receives one

	mu     sync.Mutex
	part   []byte // an incomplete line
	lines  []string
	awaits map[string]chan struct{}
}

// startRecord is the log record of a controller that has started.
type startRecord struct {
	Message string `json:"msg"`
	HTTP    string `json:"http_addr"`
	GRPC    string `json:"grpc_addr"`
}

const keptLines = 40

func newLogTail() *logTail {
	return &logTail{started: make(chan startRecord, 1), awaits: map[string]chan struct{}{}}
}

// Write receives a part of the log.
func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line(string(line))
		l.part = rest
	}
}

func (l *logTail) line(line string) {
	if l.lines = append(l.lines, line); len(l.lines) > keptLines {
		l.lines = l.lines[1:]
	}
	var s startRecord
	if err := json.Unmarshal([]byte(line), &s); err == nil && s.Message == "controller started" {
		l.started <- s
	}
	for text, seen := range l.awaits {
		if strings.Contains(line, text) {
			close(seen)
			delete(l.awaits, text)
		}
	}
}

// await returns a channel that is closed when a line with text is logged.
func (l *logTail) await(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(chan struct{})
	l.awaits[text] = seen
	return seen
}

// String returns the last lines.
func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(slices.Clip(l.lines), string(l.part)), "\n")
}
