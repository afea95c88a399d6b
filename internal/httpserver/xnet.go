package httpserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"

	"golang.org/x/net/http2"
)

// xnet is golang.org/x/net/http2. It serves connections without net/http, which would keep the
// buffers for reading an HTTP/1.1 request for the life of the connection.
type xnet struct {
	base            *http.Server
	others, proxied *http2.Server //nolint:staticcheck // deprecated for what keeps the buffers
	connContext     func(context.Context, Connection) context.Context
}

// newXNet returns a server with the handler and the settings of base. The Shutdown of base
// notifies its peers.
func newXNet(base *http.Server, o Options) http2Server {
	x := &xnet{
		base: base, connContext: o.ConnContext,
		others:  &http2.Server{MaxConcurrentStreams: maxStreams},        //nolint:staticcheck // as above
		proxied: &http2.Server{MaxConcurrentStreams: maxProxiedStreams}, //nolint:staticcheck // as above
	}
	for _, h2 := range []*http2.Server{x.others, x.proxied} { //nolint:staticcheck // as above
		if err := http2.ConfigureServer(base, h2); err != nil { //nolint:staticcheck // as above
			panic(fmt.Sprintf("settings of the server: %v", err))
		}
	}
	return x
}

// serve implements http2Server. A panic ends only c.
func (x *xnet) serve(c net.Conn, seen Connection, proxy bool, closed func()) {
	defer closed()
	defer func() {
		if err := recover(); err != nil {
			x.base.ErrorLog.Printf("http2: panic serving %v: %v\n%s", c.RemoteAddr(), err, debug.Stack())
			_ = c.Close() // nothing waits for the result
		}
	}()
	h2 := x.others
	if proxy {
		h2 = x.proxied
	}
	ctx := context.Background()
	if x.connContext != nil {
		ctx = x.connContext(ctx, seen)
	}
	h2.ServeConn(c, &http2.ServeConnOpts{Context: ctx, BaseConfig: x.base, SawClientPreface: true}) //nolint:staticcheck // as above
}

// close implements http2Server. It has nothing to do when the connections are closed.
func (*xnet) close() {}
