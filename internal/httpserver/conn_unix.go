//go:build unix

package httpserver

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// readBufferSize is how much is read from a connection at once: some 60 heartbeats.
const readBufferSize = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBufferSize]byte) }}

// bufferedConn is a connection with buffered reads: HTTP/2 reads each frame in two small
// pieces. It has a buffer only while there is data, and none while it waits. One goroutine
// reads.
type bufferedConn struct {
	net.Conn
	raw           syscall.RawConn
	readAvailable func(fd uintptr) bool // fill, as a func value
	buffer        *[readBufferSize]byte // nil while there is no data
	rest          []byte                // unread part of buffer; never empty while there is a buffer
	err           error                 // why the latest read returned no data
}

// newBufferedConn returns c with buffered reads, or c itself if it is not a connection of the
// operating system.
func newBufferedConn(c net.Conn) net.Conn {
	system, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return c // reads of c return the error
	}
	b := &bufferedConn{Conn: c, raw: raw}
	b.readAvailable = b.fill
	return b
}

// Read implements net.Conn.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.buffer == nil {
		if c.raw.Read(c.readAvailable) != nil {
			return c.Conn.Read(p) // closed, or past its deadline: c returns the right error
		}
		if c.err != nil {
			return 0, c.err
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		readBuffers.Put(c.buffer)
		c.buffer, c.rest = nil, nil
	}
	return n, nil
}

// fill reads the available data from fd into a buffer, and reports whether there was data, the
// end, or an error.
func (c *bufferedConn) fill(fd uintptr) bool {
	buffer := readBuffers.Get().(*[readBufferSize]byte) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	n, err := syscall.Read(int(fd), buffer[:])
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), buffer[:])
	}
	if n > 0 {
		c.buffer, c.rest, c.err = buffer, buffer[:n], nil
		return true
	}
	readBuffers.Put(buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false
	case err == nil:
		c.err = io.EOF
	default:
		c.err = &net.OpError{
			Op: "read", Net: c.RemoteAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
			Err: os.NewSyscallError("read", err),
		}
	}
	return true
}
