package app

import (
	"net"
	"sync"
)

// readBufferSize is how much is taken from a connection at once: some 60
// heartbeats.
const readBufferSize = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBufferSize]byte) }}

// bufferedConn is a connection that is read in large pieces. HTTP/2 asks for
// each frame in two small ones. It has a buffer only while there is something to
// read: what comes first after a pause is read to where it is wanted, and what
// comes with it through a buffer. One goroutine reads.
type bufferedConn struct {
	net.Conn
	buffer *[readBufferSize]byte // nil while there is none
	rest   []byte                // of buffer, not read yet
	busy   bool                  // the latest read of the connection left more behind
}

// Read implements net.Conn.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if !c.busy || len(p) >= readBufferSize {
			c.release()
			n, err := c.Conn.Read(p)
			c.busy = n == len(p)
			return n, err
		}
		if c.buffer == nil {
			c.buffer = readBuffers.Get().(*[readBufferSize]byte) //nolint:errcheck,forcetypeassert // the pool holds nothing else
		}
		n, err := c.Conn.Read(c.buffer[:])
		c.rest, c.busy = c.buffer[:n], n == readBufferSize
		if err != nil {
			return copy(p, c.rest), err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	if len(c.rest) == 0 && !c.busy {
		c.release()
	}
	return n, nil
}

func (c *bufferedConn) release() {
	if c.buffer != nil {
		readBuffers.Put(c.buffer)
		c.buffer, c.rest = nil, nil
	}
}
