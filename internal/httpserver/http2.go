package httpserver

import (
	"crypto/tls"
	"net"
)

// http2Server serves connections of HTTP/2. It is where one implementation takes the place
// of another: see newHTTP2.
type http2Server interface {
	// serve serves c, of which the client's preface has been read. It calls closed when c
	// is closed, before or after it returns. proxy is whether the peer is one of the proxies,
	// and seen is what the handlers see of c.
	serve(c net.Conn, seen Connection, proxy bool, closed func())
	// close frees what serve started. It is called when all connections are closed, perhaps
	// more than once.
	close()
}

// serveHTTP2 serves c, which calls closed when it is closed.
func (s *Server) serveHTTP2(c net.Conn, closed func()) {
	proxy, streams := s.isProxy(c.RemoteAddr()), maxStreams
	if proxy {
		streams = maxProxiedStreams
	}
	counted := &countedConn{budget: newResetBudget(streams), exceeded: func() { s.warnOfResets(c) }}
	if encrypted, ok := c.(*tls.Conn); ok { // it reads whole records by itself
		counted.observed, _ = encrypted.NetConn().(*observedConn)
		counted.Conn = encrypted
		s.http2.serve(countedTLS{counted, encrypted}, counted.observed, proxy, closed)
		return
	}
	counted.observed = s.observe(newBufferedConn(c))
	counted.Conn = counted.observed
	s.http2.serve(counted, counted.observed, proxy, closed)
}

// observe returns c as one that notes how it ends.
func (s *Server) observe(c net.Conn) *observedConn {
	h := s.http1.HTTP2
	return newObservedConn(c, h.SendPingTimeout+h.PingTimeout)
}
