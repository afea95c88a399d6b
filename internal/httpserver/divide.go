package httpserver

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// divider accepts connections and distinguishes HTTP/2 from HTTP/1.1 by the first bytes of the
// client. It serves HTTP/2 itself, and returns the rest from Accept.
type divider struct {
	net.Listener
	server *Server
	turns  turns // of its connections
	rest   chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
	loop   sync.WaitGroup
}

func newDivider(l net.Listener, s *Server) *divider {
	d := &divider{
		Listener: l, server: s, turns: newTurns(),
		rest: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{}),
	}
	d.loop.Go(d.acceptLoop)
	return d
}

// acceptLoop continues after an error when Accept is called again: its caller decides how long
// to wait, and whether to continue.
func (d *divider) acceptLoop() {
	for {
		c, err := d.Listener.Accept()
		if err == nil {
			d.server.attend(c, d.turns, d.passOn)
			continue
		}
		select {
		case d.failed <- err:
		case <-d.closed:
			return
		}
	}
}

// Accept implements net.Listener.
func (d *divider) Accept() (net.Conn, error) {
	select {
	case c := <-d.rest:
		return c, nil
	case err := <-d.failed:
		return nil, err
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *divider) Close() error {
	d.once.Do(func() { close(d.closed) })
	err := d.Listener.Close()
	d.loop.Wait()
	return err
}

// passOn passes c to a caller of Accept.
func (d *divider) passOn(c net.Conn) {
	select {
	case d.rest <- c:
	case <-d.closed:
		_ = c.Close() // as if it had not been accepted
	}
}

// readPreface reads just enough bytes of a connection to know whether they are the HTTP/2
// preface (RFC 9113, 3.4).
func readPreface(c net.Conn, within time.Duration) (read []byte, isHTTP2 bool, err error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, false, err
	}
	buf := make([]byte, len(http2.ClientPreface))
	for n := 0; n < len(buf); {
		k, err := c.Read(buf[n:])
		n += k
		if !bytes.HasPrefix([]byte(http2.ClientPreface), buf[:n]) {
			return buf[:n], false, c.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return nil, false, err
		}
	}
	return nil, true, c.SetReadDeadline(time.Time{})
}

// replayedConn is a connection whose first bytes have been read already. It returns them
// again.
type replayedConn struct {
	net.Conn
	all    io.Reader
	closed func() // called after each Close
}

func replay(read []byte, c net.Conn) *replayedConn {
	return &replayedConn{c, io.MultiReader(bytes.NewReader(read), c), func() {}}
}

// conn returns c in the form that net/http needs.
func (c *replayedConn) conn() net.Conn {
	if encrypted, ok := c.Conn.(*tls.Conn); ok {
		return replayedTLS{c, encrypted}
	}
	return c
}

// Close implements net.Conn.
func (c *replayedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// Read implements net.Conn.
func (c *replayedConn) Read(p []byte) (int, error) { return c.all.Read(p) }

// CloseWrite is called by net/http to end a connection whose request it has not read
// completely, so that the response arrives.
func (c *replayedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// replayedTLS is a replayedConn with TLS.
type replayedTLS struct {
	*replayedConn
	encrypted *tls.Conn
}

// ConnectionState is used by net/http for each request.
func (c replayedTLS) ConnectionState() tls.ConnectionState { return c.encrypted.ConnectionState() }
