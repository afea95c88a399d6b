package testkit

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Blackhole is a TCP proxy that can stop forwarding without closing anything, like a dead
// link.
type Blackhole struct {
	// Addr is its listening address, as host:port.
	Addr string
	to   string

	mu      sync.Mutex
	dead    *bool // shared by the connections since the latest Mend
	open    []io.Closer
	running sync.WaitGroup
}

// NewBlackhole forwards connections to an address until Swallow, Cut or the end of the
// test.
func NewBlackhole(t *testing.T, to string) *Blackhole {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &Blackhole{Addr: l.Addr().String(), to: to, dead: new(bool), open: []io.Closer{l}}
	h.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			h.connect(t, near)
		}
	})
	t.Cleanup(h.Cut)
	return h
}

func (h *Blackhole) connect(t *testing.T, near net.Conn) {
	t.Helper()
	far, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.to)
	if err != nil {
		_ = near.Close() // the agent reconnects
		return
	}
	h.mu.Lock()
	h.open = append(h.open, near, far)
	dead := h.dead
	h.mu.Unlock()
	h.running.Go(func() { h.forward(near, far, dead) })
	h.running.Go(func() { h.forward(far, near, dead) })
}

// Swallow makes it discard what it receives from now on.
func (h *Blackhole) Swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	*h.dead = true
}

// Mend makes it forward connections that are opened from now on. Existing ones do not
// recover.
func (h *Blackhole) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = new(bool)
}

// Cut closes all connections, and accepts no more.
func (h *Blackhole) Cut() {
	h.mu.Lock()
	for _, c := range h.open {
		_ = c.Close() // it may be closed
	}
	h.mu.Unlock()
	h.running.Wait()
}

// forward copies or discards what it reads. It closes nothing.
func (h *Blackhole) forward(to io.Writer, from io.Reader, dead *bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		h.mu.Lock()
		if !*dead {
			_, err = to.Write(b[:n])
		}
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}
