package crash

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay is a fixed address for successive controllers, each on ports of its own. A
// connection is closed if there is none.
type relay struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	target string // empty while there is no controller
	closed bool
	conns  map[net.Conn]struct{}
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: l, conns: map[net.Conn]struct{}{}}
	ctx := t.Context() // it ends before the relay is closed
	r.serving.Go(func() { r.accept(ctx) })
	t.Cleanup(r.close)
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// point sends new connections to addr, or ends them when it is empty.
func (r *relay) point(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = addr
}

// close closes all connections and waits for their goroutines.
func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
}

func (r *relay) accept(ctx context.Context) {
	for {
		conn, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.serving.Go(func() { r.serve(ctx, conn) })
		}
	}
}

// serve forwards everything until one side ends; then it closes both.
func (r *relay) serve(ctx context.Context, in net.Conn) {
	defer r.forget(in)
	target, ok := r.keep(in)
	if !ok || target == "" {
		return
	}
	out, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer r.forget(out)
	if _, ok := r.keep(out); !ok {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out) // a crash is not an error here
		_ = in.Close()
	})
	_, _ = io.Copy(out, in)
	_ = out.Close()
	back.Wait()
}

func (r *relay) keep(conn net.Conn) (target string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = struct{}{}
	return r.target, !r.closed
}

func (r *relay) forget(conn net.Conn) {
	_ = conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}
