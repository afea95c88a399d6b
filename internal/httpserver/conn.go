package httpserver

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// ErrPingTimeout means that the peer did not answer a ping in time.
var ErrPingTimeout = errors.New("ping timeout")

// observedConn is a connection that records how it ends, for handlers to see as a Connection.
// The HTTP/2 server closes a connection whose peer does not answer its ping without notifying
// the handlers.
type observedConn struct {
	net.Conn
	opened   time.Time
	silence  time.Duration         // after this time without data the peer has not answered a ping
	received atomic.Int64          // when the last byte arrived, in nanoseconds since opened
	stalled  atomic.Bool           // the peer accepted only a part of the last write in time
	ended    atomic.Pointer[error] // the first error that ended it
}

var _ Connection = (*observedConn)(nil)

func newObservedConn(c net.Conn, silence time.Duration) *observedConn {
	return &observedConn{Conn: c, opened: time.Now(), silence: silence}
}

// Read implements net.Conn.
func (c *observedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.received.Store(int64(time.Since(c.opened)))
	}
	if err != nil {
		c.end(err)
	}
	return n, err
}

// Write implements net.Conn.
func (c *observedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	late := errors.Is(err, os.ErrDeadlineExceeded)
	c.stalled.Store(late)
	if err != nil && (n == 0 || !late) { // otherwise an HTTP/2 server writes the rest, unless the connection uses TLS
		c.end(err)
	}
	return n, err
}

// Close implements net.Conn.
func (c *observedConn) Close() error {
	switch {
	case time.Since(c.opened)-time.Duration(c.received.Load()) >= c.silence:
		c.end(ErrPingTimeout)
	case c.stalled.Load():
		c.end(os.ErrDeadlineExceeded)
	default:
		c.end(net.ErrClosed)
	}
	return c.Conn.Close()
}

func (c *observedConn) end(err error) { c.ended.CompareAndSwap(nil, &err) }

// Ended implements Connection.
func (c *observedConn) Ended() error {
	if err := c.ended.Load(); err != nil {
		return *err
	}
	return nil
}
