package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// netHTTP is net/http's HTTP/2. It gets its connections from its own listener, in a form as if
// they were plaintext and unread.
type netHTTP struct {
	connContext     func(context.Context, Connection) context.Context
	others, proxied *handedServer
}

// newNetHTTP returns a server with the handler and the settings of base. The Shutdown of base
// notifies its peers.
func newNetHTTP(base *http.Server, o Options) http2Server {
	n := &netHTTP{connContext: o.ConnContext}
	n.others, n.proxied = n.server(base, maxStreams), n.server(base, maxProxiedStreams)
	return n
}

// server returns a server whose connections may have so many streams.
func (n *netHTTP) server(base *http.Server, streams int) *handedServer {
	settings := *base.HTTP2
	settings.MaxConcurrentStreams = streams
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &handedServer{handed: newHandedListener()}
	s.server = &http.Server{
		Handler: withTLSState(base.Handler), Protocols: protocols, HTTP2: &settings,
		ReadHeaderTimeout: base.ReadHeaderTimeout, IdleTimeout: base.IdleTimeout, MaxHeaderBytes: base.MaxHeaderBytes,
		DisableGeneralOptionsHandler: base.DisableGeneralOptionsHandler, ErrorLog: base.ErrorLog,
		ConnContext: n.contextOf,
	}
	base.RegisterOnShutdown(s.notify)
	return s
}

// serve implements http2Server.
func (n *netHTTP) serve(c net.Conn, seen Connection, proxy bool, closed func()) {
	handed := &handedConn{
		Conn: c, all: io.MultiReader(strings.NewReader(http2.ClientPreface), c), seen: seen, closed: sync.OnceFunc(closed),
	}
	if encrypted, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		state := encrypted.ConnectionState()
		handed.state = &state
	}
	s := n.others
	if proxy {
		s = n.proxied
	}
	s.serve(handed)
}

// close implements http2Server.
func (n *netHTTP) close() {
	n.others.close()
	n.proxied.close()
}

type handedKey struct{}

// contextOf is http.Server's ConnContext.
func (n *netHTTP) contextOf(ctx context.Context, c net.Conn) context.Context {
	handed, ok := c.(*handedConn)
	if !ok {
		return ctx
	}
	ctx = context.WithValue(ctx, handedKey{}, handed)
	if n.connContext != nil {
		ctx = n.connContext(ctx, handed.seen)
	}
	return ctx
}

// withTLSState sets the TLS state of requests, which net/http does not know.
func withTLSState(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(handedKey{}).(*handedConn); ok {
			r.TLS = c.state
		}
		next.ServeHTTP(w, r)
	})
}

// handedServer serves connections that are handed to it.
type handedServer struct {
	server  *http.Server
	handed  *handedListener
	start   sync.Once
	serving sync.WaitGroup
}

func (s *handedServer) serve(c *handedConn) {
	s.start.Do(func() {
		s.serving.Go(func() {
			if err := s.server.Serve(s.handed); !errors.Is(err, http.ErrServerClosed) {
				s.server.ErrorLog.Printf("http2: %v", err)
			}
		})
	})
	s.handed.hand(c)
}

// notify informs the peers that the server stops. It does not wait for them.
func (s *handedServer) notify() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.server.Shutdown(ctx) // it returns an error because it has not waited
}

func (s *handedServer) close() {
	_ = s.server.Close() // its connections are closed already
	s.serving.Wait()
}

// handedListener is a net.Listener of connections that were accepted elsewhere.
type handedListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandedListener() *handedListener {
	return &handedListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *handedListener) hand(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		_ = c.Close() // as if it had not been accepted
	}
}

// Accept implements net.Listener.
func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *handedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (*handedListener) Addr() net.Addr { return &net.TCPAddr{} }

// handedConn is a connection that returns its preface again.
type handedConn struct {
	net.Conn
	all    io.Reader
	seen   Connection
	state  *tls.ConnectionState // nil for plaintext
	closed func()               // called after each Close
}

// Read implements net.Conn.
func (c *handedConn) Read(p []byte) (int, error) { return c.all.Read(p) }

// Close implements net.Conn.
func (c *handedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
