package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// server serves HTTP/1.1 and HTTP/2, all with TLS or all without. net/http sees the
// connections of HTTP/1.1 alone: it would keep the buffers that it reads a request
// with for as long as an HTTP/2 connection lives.
type server struct {
	http1   *http.Server
	http2   *http2.Server  //nolint:staticcheck // deprecated for what keeps the buffers
	proxied *http2.Server  //nolint:staticcheck // as above; it serves the proxies
	proxies []netip.Prefix // whose connections carry many agents
	crowd   *crowd
	tls     *tls.Config // nil for plaintext
	log     *slog.Logger
	limiter *loglimit.Limiter

	mu      sync.Mutex
	conns   map[net.Conn]bool // whether it is known to speak HTTP/2
	closing bool
	serving sync.WaitGroup // conns; nothing is added once closing is set
}

// access is what peers are granted.
type access struct {
	// proxies are those whose connections may have more streams than others.
	proxies []netip.Prefix
	// crowded is how many connections there may be before sources that have many get no
	// more; 0 is without limit.
	crowded int
}

// newServer returns a server of h, with TLS unless that is nil.
//
// There is no ReadTimeout and no WriteTimeout: both count from the start of a
// stream and would end it. Instead a peer has ReadHeaderTimeout for its first
// bytes, IdleTimeout without a request, SendPingTimeout+PingTimeout to show that
// it is there (an idle stream lives on as long as it answers pings), and
// WriteByteTimeout to take what is sent to it.
func newServer(h http.Handler, secure *tls.Config, granted access, log *slog.Logger) *server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s := &server{
		http2:   &http2.Server{MaxConcurrentStreams: maxStreams},        //nolint:staticcheck // as above
		proxied: &http2.Server{MaxConcurrentStreams: maxProxiedStreams}, //nolint:staticcheck // as above
		proxies: granted.proxies, crowd: newCrowd(granted.crowded), tls: secure,
		log: log, limiter: new(loglimit.Limiter), conns: map[net.Conn]bool{},
	}
	s.http1 = &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       contextOf,
		MaxHeaderBytes:    64 << 10,
		// Otherwise OPTIONS * is answered before the handler, without limits.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(serverLog{log.Handler(), s.limiter}, slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			// The headers of an answer are sent once on most connections.
			MaxEncoderHeaderTableSize: 1,
			// A connection keeps a buffer as large as its largest frame.
			MaxReadFrameSize: 16 << 10,
			// What one agent can queue before it is read: some 1,200 heartbeats.
			MaxReceiveBufferPerStream:     256 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			// A peer whose link is dead is known to be within 15 s, before the ack of
			// a command that was sent into it is due. A proxy that cuts quiet
			// connections after a minute sees more than one frame in it.
			SendPingTimeout: 10 * time.Second,
			PingTimeout:     5 * time.Second,
			// As long as an agent may take to take a message.
			WriteByteTimeout: 10 * time.Second,
		},
	}
	// So that a Shutdown of http1 reaches HTTP/2 peers as well.
	for _, h2 := range []*http2.Server{s.http2, s.proxied} { //nolint:staticcheck // as above
		if err := http2.ConfigureServer(s.http1, h2); err != nil { //nolint:staticcheck // as above
			panic(fmt.Sprintf("settings of the server: %v", err))
		}
	}
	return s
}

// Serve serves what l accepts until the server is closed, and returns
// http.ErrServerClosed then; or until l fails.
func (s *server) Serve(l net.Listener) error { return s.http1.Serve(newDivider(l, s)) }

// contextOf is the context of the HTTP/1.1 requests that come to a listener.
func contextOf(l net.Listener) context.Context {
	if addressOf(l.Addr()).IsLoopback() {
		return rpc.WithLoopback(context.Background())
	}
	return context.Background()
}

// attend serves c if it speaks HTTP/2, and hands it over if not.
func (s *server) attend(c net.Conn, handOver func(net.Conn)) {
	source := sourceOf(c.RemoteAddr())
	if !s.admit(source) {
		_ = c.Close()
		return
	}
	if !s.add(c) {
		_ = c.Close() // as if it had not been accepted
		s.crowd.leave(source)
		return
	}
	go func() {
		defer s.remove(c)
		if rest := s.serve(c); rest != nil {
			rest.closed = sync.OnceFunc(func() { s.crowd.leave(source) })
			handOver(rest.conn())
			return
		}
		s.crowd.leave(source)
	}()
}

// serve serves c until it is closed if it speaks HTTP/2. If not, it returns c.
func (s *server) serve(c net.Conn) *replayedConn {
	opened, err := s.open(c)
	if err != nil {
		_ = c.Close()
		return nil
	}
	read, isHTTP2, err := readPreface(opened, s.http1.ReadHeaderTimeout)
	switch {
	case err != nil:
		_ = c.Close() // it said nothing
		return nil
	case !isHTTP2:
		return replay(read, opened)
	default:
		s.recognise(c)
		s.serveHTTP2(opened)
		return nil
	}
}

// serveHTTP2 serves c until it is closed. What panics costs c alone.
func (s *server) serveHTTP2(c net.Conn) {
	defer func() {
		if err := recover(); err != nil {
			s.http1.ErrorLog.Printf("http2: panic serving %v: %v\n%s", c.RemoteAddr(), err, debug.Stack())
			_ = c.Close() // nobody waits for the result
		}
	}()
	h2, streams := s.http2, maxStreams
	if s.isProxy(c.RemoteAddr()) {
		h2, streams = s.proxied, maxProxiedStreams
	}
	counted := &countedConn{budget: newResetBudget(streams), exceeded: func() { s.warnOfResets(c) }}
	if secure, ok := c.(*tls.Conn); ok { // it reads whole records by itself
		counted.observed, _ = secure.NetConn().(*observedConn)
		counted.Conn, c = c, countedTLS{counted, secure}
	} else {
		counted.observed = s.observe(newBufferedConn(c))
		counted.Conn, c = counted.observed, counted
	}
	h2.ServeConn(c, &http2.ServeConnOpts{ //nolint:staticcheck // as above
		Context:    rpc.WithConnection(context.Background(), counted.observed),
		BaseConfig: s.http1, SawClientPreface: true,
	})
}

// observe returns c as one that notes how it ends.
func (s *server) observe(c net.Conn) *observedConn {
	h := s.http1.HTTP2
	return newObservedConn(c, h.SendPingTimeout+h.PingTimeout)
}

func (s *server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.serving.Add(1)
	s.conns[c] = false
	return true
}

// recognise notes that c speaks HTTP/2.
func (s *server) recognise(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
}

func (s *server) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.serving.Done()
}

// shut closes the connections that have not said what they want, or all, and
// lets no more in.
func (s *server) shut(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for c, isHTTP2 := range s.conns {
		if all || !isHTTP2 {
			_ = c.Close() // whoever serves it goes by its reads
		}
	}
}

// Shutdown accepts nothing more, notifies the peers, and returns when the last
// request and stream have ended and their connections are closed, or ctx ends.
func (s *server) Shutdown(ctx context.Context) error {
	s.shut(false)
	if err := s.http1.Shutdown(ctx); err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serving.Wait()
	}()
	select {
	case <-served:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all connections.
func (s *server) Close() error {
	err := s.http1.Close()
	s.shut(true)
	s.serving.Wait()
	return err
}

// gate counts the requests in a handler, so that the store can be closed after
// the last of them: http.Server forgets requests whose connection is gone.
type gate struct {
	handler http.Handler

	mu   sync.Mutex
	open int
	// idle is closed when nothing is open any more; nil before the gate shuts.
	idle chan struct{}
}

// ServeHTTP passes the request on while the gate is open.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.enter() {
		http.Error(w, "the controller is stopping", http.StatusServiceUnavailable)
		return
	}
	defer g.leave()
	g.handler.ServeHTTP(w, r)
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle != nil {
		return false
	}
	g.open++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.idle != nil && g.open == 0 {
		close(g.idle)
	}
}

// shut lets no more requests in. The channel is closed when none is left. It
// must be called once only.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = make(chan struct{})
	if g.open == 0 {
		close(g.idle)
	}
	return g.idle
}
