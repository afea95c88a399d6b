package faults

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One machine opens all the connections it can get and sends nothing on them. An operator
// and an agent on another machine are served anyway.
func testIdlePeers(t *testing.T) {
	const files = "256"
	c := newController(t)
	c.child = startChild(t, exec.CommandContext(t.Context(), "sh",
		append([]string{"-c", "ulimit -n " + files + ` && exec "$0" "$@"`, program(t, "controller")}, c.options...)...))
	c.awaitStart(t)
	idle := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	open := 0
	for range 300 {
		conn, err := idle.DialContext(t.Context(), "tcp", c.addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		// The controller immediately closes connections that it does not keep.
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			open++
		}
	}
	require.Greater(t, open, 100)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // shorter than the timeout of idle ones
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+"/ready", http.NoBody)
	require.NoError(t, err)
	answer, err := (&http.Client{Transport: newTransport(t)}).Do(r)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	a := c.connect(t, "vm-1")
	a.register(t)
	c.send(t, "vm-1", "sent")
	a.expect(t, "sent")
	c.awaitLine(t, ofMessage("connection closed: few open files are left, and its source has many connections"),
		`"source":"127.0.0.2"`)
	require.Empty(t, c.out.lines(ofMessage("a connection could not be accepted")))
}
