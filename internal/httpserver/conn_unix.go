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

// readBufferSize is how much is taken from a connection at once: some 60
// heartbeats.
const readBufferSize = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBufferSize]byte) }}

// bufferedConn is a connection that is read in large pieces. HTTP/2 asks for
// each frame in two small ones. It has a buffer only while there is something to
// read, and none while it waits. One goroutine reads.
type bufferedConn struct {
	net.Conn
	raw    syscall.RawConn
	take   func(fd uintptr) bool // takeAll, made once
	buffer *[readBufferSize]byte // nil while there is nothing to read
	rest   []byte                // of buffer, not read yet; never empty while there is one
	err    error                 // why nothing was taken, when all that could be was
}

// newBufferedConn returns c as it is read in large pieces, or c itself if it is
// not one of the operating system's.
func newBufferedConn(c net.Conn) net.Conn {
	system, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return c // its reads return the error
	}
	b := &bufferedConn{Conn: c, raw: raw}
	b.take = b.takeAll
	return b
}

// Read implements net.Conn.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.buffer == nil {
		if c.raw.Read(c.take) != nil {
			return c.Conn.Read(p) // closed, or past its deadline: its own error is the best
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

// takeAll takes what has come on fd, as much as a buffer holds, and reports
// whether there was anything, be it the end or an error.
func (c *bufferedConn) takeAll(fd uintptr) bool {
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
