package httpserver

import (
	"crypto/tls"
	"net"
)

// http2Server serves HTTP/2 connections. It has two implementations: see newHTTP2.
type http2Server interface {
	// serve serves c, whose client preface has been read. It calls closed when c is closed,
	// before or after it returns. proxy is whether the peer is one of the proxies, and seen is
	// the Connection that handlers get.
	serve(c net.Conn, seen Connection, proxy bool, closed func())
	// close releases the resources of serve. It is called when all connections are closed,
	// perhaps more than once.
	close()
}

// serveHTTP2 serves c, and calls closed when c is closed.
func (s *Server) serveHTTP2(c net.Conn, closed func()) {
	proxy, streams := s.isProxy(c.RemoteAddr()), maxStreams
	if proxy {
		streams = maxProxiedStreams
	}
	counted := &countedConn{budget: newResetBudget(streams), exceeded: func() { s.warnOfResets(c) }}
	if encrypted, ok := c.(*tls.Conn); ok { // TLS reads whole records
		counted.observed, _ = encrypted.NetConn().(*observedConn)
		counted.Conn = encrypted
		s.http2.serve(countedTLS{counted, encrypted}, counted.observed, proxy, closed)
		return
	}
	counted.observed = s.observe(newBufferedConn(c))
	counted.Conn = counted.observed
	s.http2.serve(counted, counted.observed, proxy, closed)
}

// observe returns c as an observedConn.
func (s *Server) observe(c net.Conn) *observedConn {
	h := s.http1.HTTP2
	return newObservedConn(c, h.SendPingTimeout+h.PingTimeout)
}
