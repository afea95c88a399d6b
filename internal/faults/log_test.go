package faults

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// logReader reads the log of a controller from a pipe, as a supervisor does, or stalls.
type logReader struct {
	output
	pipe *os.File

	mu      sync.Mutex
	stalled chan struct{} // closed when it resumes; nil while it reads
}

func (r *logReader) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stalled = make(chan struct{})
}

func (r *logReader) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stalled != nil {
		close(r.stalled)
		r.stalled = nil
	}
}

func (r *logReader) wait() {
	r.mu.Lock()
	stalled := r.stalled
	r.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
}

// run reads until the pipe ends.
func (r *logReader) run() {
	for part := make([]byte, 4<<10); ; r.wait() {
		n, err := r.pipe.Read(part)
		_, _ = r.Write(part[:n]) // never fails
		if err != nil {
			return
		}
	}
}

// startLogging starts the controller with a pipe as its stderr and a reader that can stall.
func (c *controller) startLogging(t *testing.T) *logReader {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program(t, "controller"), c.options...)
	cmd.Stderr = w
	c.child = startChild(t, cmd)
	require.NoError(t, w.Close())
	log := &logReader{pipe: r}
	log.stall()
	var reading sync.WaitGroup
	reading.Go(log.run)
	t.Cleanup(func() {
		_ = r.Close() // a test may have closed it
		log.resume()
		reading.Wait()
		if t.Failed() {
			t.Logf("its log:\n%s", log)
		}
	})
	awaitListener(t, c.addr, c.child)
	return log
}

// flood sends heartbeats, each of which causes a line of 400 bytes at level debug.
func (a *agent) flood(t *testing.T, n int) {
	t.Helper()
	m := beatOf(a.vm)
	m.GetHeartbeat().MigletState = strings.Repeat("s", 128)
	encoded, err := proto.Marshal(m)
	require.NoError(t, err)
	sent := make(chan error, 1)
	go func() {
		var err error
		for range n {
			if err = a.stream.SendMsg(encoded); err != nil {
				break
			}
		}
		sent <- err
	}()
	select {
	case err := <-sent:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "the controller does not read", a.vm)
	}
}

// requireServing requires that a command is delivered and acked, and that the probes
// succeed.
func (c *controller) requireServing(t *testing.T, a *agent, id string) {
	t.Helper()
	c.send(t, a.vm, id)
	a.expect(t, id)
	a.ack(t, id)
	c.awaitEnd(t, id, succeeded)
	for _, path := range []string{"/health", "/ready"} {
		status, text := c.get(t, path)
		require.Equal(t, http.StatusOK, status, text)
	}
}

// requireStop requires that SIGTERM ends the controller in time and without an error.
func (c *controller) requireStop(t *testing.T) {
	t.Helper()
	asked := time.Now()
	c.terminate(t)
	require.Zero(t, c.cmd.ProcessState.ExitCode())
	require.Less(t, time.Since(asked), 10*time.Second)
}

// A log that is no longer read, or whose reader has ended, blocks nothing, and closing the
// terminal ends nothing. Lost lines are counted.
func testLogReaderStalled(t *testing.T) {
	c := newController(t, "--log-level=debug")
	log := c.startLogging(t)
	a := c.connectRegistered(t, "vm-"+strings.Repeat("x", 124))
	a.flood(t, 24_000) // more than the pipe and the queue hold
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGHUP))
	c.requireServing(t, a, "while-stalled")

	log.resume()
	await(t, func() bool { return len(log.lines("log lines left out")) > 0 }, "lost lines are not counted")
	require.Regexp(t, `"suppressed":[1-9]\d*`, log.lines("log lines left out")[0])
	log.stall()
	a.flood(t, 1000) // more than the pipe holds
	c.requireServing(t, a, "while-stalled-again")
	c.requireStop(t)

	require.NoError(t, c.startLogging(t).pipe.Close())
	a = c.connect(t, "vm-2")
	a.register(t)
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGHUP))
	c.requireServing(t, a, "while-closed")
	c.requireStop(t)
}
