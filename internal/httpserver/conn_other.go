//go:build !unix

package httpserver

import "net"

// newBufferedConn returns c: only elsewhere can a connection be waited for
// without a buffer.
func newBufferedConn(c net.Conn) net.Conn { return c }
