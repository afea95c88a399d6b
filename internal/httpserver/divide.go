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

// divider accepts connections and distinguishes HTTP/2 from HTTP/1.1 by what the client
// sends first. It serves HTTP/2 itself; as a net.Listener it hands out the rest.
type divider struct {
	net.Listener
	server *Server
	rest   chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
	loop   sync.WaitGroup
}

func newDivider(l net.Listener, s *Server) *divider {
	d := &divider{
		Listener: l, server: s,
		rest: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{}),
	}
	d.loop.Go(d.acceptLoop)
	return d
}

// acceptLoop goes on after an error when the next Accept has been called: how
// long to wait until then, and whether at all, is left to its caller.
func (d *divider) acceptLoop() {
	for {
		c, err := d.Listener.Accept()
		if err == nil {
			d.server.attend(c, d.handOver)
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

// handOver passes c to the caller of Accept.
func (d *divider) handOver(c net.Conn) {
	select {
	case d.rest <- c:
	case <-d.closed:
		_ = c.Close() // as if it had not been accepted
	}
}

// readPreface reads the first bytes of a connection: as many as it takes to know
// whether they are the preface of HTTP/2 (RFC 9113, 3.4), and no byte more.
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

// replayedConn is a connection of which the first bytes have been read.
type replayedConn struct {
	net.Conn
	all    io.Reader
	closed func() // called after each Close
}

func replay(read []byte, c net.Conn) *replayedConn {
	return &replayedConn{c, io.MultiReader(bytes.NewReader(read), c), func() {}}
}

// conn returns c as net/http has to see it.
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

// CloseWrite is what net/http ends a connection with of whose request it has not
// read all, so that the answer arrives.
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

// ConnectionState is what net/http puts into each request.
func (c replayedTLS) ConnectionState() tls.ConnectionState { return c.encrypted.ConnectionState() }
