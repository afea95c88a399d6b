package faults

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for an expected event.
const patience = time.Minute

// child is a process that a test started, with its children.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	out    output
}

// startChild starts a process. It and its children are killed at the end of the test. Its
// output is kept, unless the command already has a stderr.
func startChild(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout = &c.out
	if cmd.Stderr == nil {
		cmd.Stderr = &c.out
	}
	cmd.SysProcAttr = childProcess()
	// A grandchild that outlives the process for a moment holds the output open.
	cmd.WaitDelay = time.Second
	require.NoError(t, cmd.Start())
	go func() {
		defer close(c.exited)
		_ = cmd.Wait() // any exit status will do
	}()
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", cmd.Path, c.out.String())
		}
	})
	return c
}

// kill ends the process and its children without any cleanup.
func (c *child) kill() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // fails if all have ended
	<-c.exited
}

// terminate asks the process to stop, and waits until it has ended.
func (c *child) terminate(t *testing.T) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-c.exited:
	case <-time.After(patience):
		require.FailNow(t, "it does not end", c.cmd.Path)
	}
}

// keptOutput is how much of a process's output is kept, and shownOutput how much of that a
// failed test shows.
const (
	keptOutput  = 16 << 20
	shownOutput = 8 << 10
)

// output keeps the last part of a process's output.
type output struct {
	mu   sync.Mutex
	last []byte
}

// Write receives output of the process.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, p...)
	o.last = o.last[max(0, len(o.last)-keptOutput):]
	return len(p), nil
}

// String returns the last part.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.last[max(0, len(o.last)-shownOutput):])
}

// lines returns the complete lines that contain all of the texts.
func (o *output) lines(texts ...string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var found []string
	for line := range strings.Lines(string(o.last)) {
		if strings.HasSuffix(line, "\n") && containsAll(line, texts) {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

func containsAll(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}

// awaitListener waits until the process accepts connections at the address.
func awaitListener(t *testing.T, addr string, c *child) {
	t.Helper()
	serves := func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		return err == nil && conn.Close() == nil
	}
	deadline := time.After(patience)
	for !serves() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.exited:
			require.FailNow(t, "it ended instead of serving", c.cmd.Path)
		case <-deadline:
			require.FailNow(t, "it does not serve", "%s at %s", c.cmd.Path, addr)
		}
	}
}

// portsTried counts the ports that were tried.
var portsTried atomic.Int32

// freePorts returns unused loopback addresses outside the kernel's range for outgoing
// connections, each once per process: a test that kills a process needs its port for the
// next one.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	base := 20_000 + os.Getpid()%50*200
	var addrs []string
	for len(addrs) < n {
		addr := fmt.Sprintf("127.0.0.1:%d", base+int(portsTried.Add(1))%10_000)
		// Not by listening: a process that is being started at the same time would inherit
		// the port for a while.
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close() // taken
			continue
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

// newTransport uses plaintext HTTP/2.
func newTransport(t *testing.T) *http.Transport {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
