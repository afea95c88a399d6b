//go:build !unix

package httpserver

import "net"

// newBufferedConn returns c: on this platform a read cannot wait without a buffer.
func newBufferedConn(c net.Conn) net.Conn { return c }
