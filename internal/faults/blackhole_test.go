package faults

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// blackhole is a proxy that can stop forwarding without closing anything.
type blackhole struct {
	addr string
	to   string

	mu        sync.Mutex
	swallowed bool
	open      []io.Closer
	running   sync.WaitGroup
}

// newBlackhole forwards connections to an address, until swallow.
func newBlackhole(t *testing.T, to string) *blackhole {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &blackhole{addr: l.Addr().String(), to: to, open: []io.Closer{l}}
	h.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			h.connect(t, near)
		}
	})
	t.Cleanup(h.cut)
	return h
}

func (h *blackhole) connect(t *testing.T, near net.Conn) {
	t.Helper()
	far, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.to)
	if err != nil {
		_ = near.Close() // its agent comes again
		return
	}
	h.mu.Lock()
	h.open = append(h.open, near, far)
	h.mu.Unlock()
	h.running.Go(func() { h.forward(near, far) })
	h.running.Go(func() { h.forward(far, near) })
}

func (h *blackhole) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swallowed = true
}

// cut closes all connections, and takes no more.
func (h *blackhole) cut() {
	h.mu.Lock()
	for _, c := range h.open {
		_ = c.Close() // it may be closed
	}
	h.mu.Unlock()
	h.running.Wait()
}

// forward copies what comes, or reads it to nowhere. It closes nothing.
func (h *blackhole) forward(to io.Writer, from io.Reader) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		h.mu.Lock()
		if !h.swallowed {
			_, err = to.Write(b[:n])
		}
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}
