package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// Options configure a Server. Handler and Log are required.
type Options struct {
	// Handler serves the requests of all connections.
	Handler http.Handler
	// TLS applies to all connections; nil means plaintext.
	TLS *tls.Config
	// Proxies are the peers whose connections may have more streams than others.
	Proxies []netip.Prefix
	// Crowded is the number of connections from which on sources that have many get no more; 0
	// means no limit.
	Crowded int
	// ConnContext returns the context of the requests of an HTTP/2 connection, derived from
	// the one given; nil adds nothing to it.
	ConnContext func(context.Context, Connection) context.Context
	// Log receives errors of peers and of the operating system.
	Log *slog.Logger
	// Metrics registers the metrics of connections; nil registers none.
	Metrics prometheus.Registerer
}

// Connection is an HTTP/2 connection as the handlers of its requests see it. It is
// comparable, and safe for concurrent use.
type Connection interface {
	// Ended returns why the connection ended; nil while it is open: io.EOF when the peer
	// closed it, ErrPingTimeout, os.ErrDeadlineExceeded when the peer accepted no data in
	// time, net.ErrClosed when this side closed it for another reason, and otherwise the
	// network error.
	Ended() error
}

// Server serves HTTP/1.1 and HTTP/2, all with TLS or all without. The first bytes of a
// connection show its protocol: HTTP/1.1 is served by net/http, HTTP/2 by an http2Server.
type Server struct {
	http1   *http.Server
	http2   http2Server
	tls     *tls.Config
	proxies []netip.Prefix
	limit   *connectionLimit
	log     *slog.Logger
	limiter *loglimit.Limiter
	metrics metrics

	mu      sync.Mutex
	conns   map[net.Conn]bool // value: whether it is known to speak HTTP/2
	opening int               // how many of conns are not
	closing bool
	closed  chan struct{}  // when closing is set
	serving sync.WaitGroup // counts conns; nothing is added once closing is set
}

// New returns a server that serves nothing yet.
func New(o Options) *Server { return newServer(o, newHTTP2) }

// newServer is New with an HTTP/2 implementation.
func newServer(o Options, makeHTTP2 func(*http.Server, Options) http2Server) *Server {
	limiter := new(loglimit.Limiter)
	http1 := newHTTP1(o.Handler, serverLog{o.Log.Handler(), limiter})
	s := &Server{
		http1: http1, http2: makeHTTP2(http1, o), tls: o.TLS, proxies: o.Proxies, limit: newConnectionLimit(o.Crowded),
		log: o.Log, limiter: limiter, conns: map[net.Conn]bool{}, closed: make(chan struct{}),
	}
	s.metrics = newMetrics(o.Metrics, s.limit.open, s.countOpening)
	return s
}

// Serve serves the connections of l until the server is closed, and then returns
// http.ErrServerClosed, or until l fails.
func (s *Server) Serve(l net.Listener) error { return s.http1.Serve(newDivider(l, s)) }

// attend serves c in its turn if it speaks HTTP/2, and otherwise passes it to handOver.
func (s *Server) attend(c net.Conn, in turns, handOver func(net.Conn)) {
	s.metrics.accepted.Inc()
	source := sourceOf(c.RemoteAddr())
	if !s.admit(source) {
		s.metrics.refused[refusedCrowded].Inc()
		_ = c.Close()
		return
	}
	leave := func() { s.limit.leave(source) }
	if !s.add(c) {
		s.metrics.refused[refusedStopping].Inc()
		_ = c.Close() // as if it had not been accepted
		leave()
		return
	}
	go func() {
		in.wait(s.closed)
		s.serve(c, leave, handOver)
	}()
}

// serve serves c if it speaks HTTP/2, and otherwise passes it to handOver. It calls leave when
// c is closed.
func (s *Server) serve(c net.Conn, leave func(), handOver func(net.Conn)) {
	opened, err := s.open(c)
	if err != nil {
		reason := refusedHandshake
		if errors.Is(err, errPlaintext) {
			reason = refusedPlaintext
		}
		s.drop(c, leave, reason)
		return
	}
	read, isHTTP2, err := readPreface(opened, s.http1.ReadHeaderTimeout)
	switch {
	case err != nil:
		s.drop(c, leave, refusedSilent)
	case isHTTP2:
		s.recognise(c)
		s.serveHTTP2(opened, func() {
			s.remove(c)
			leave()
		})
	default:
		rest := replay(read, opened)
		rest.closed = sync.OnceFunc(leave)
		handOver(rest.conn())
		s.remove(c)
	}
}

// drop closes a connection that is not served for this reason, unless a stop has closed it.
func (s *Server) drop(c net.Conn, leave func(), reason string) {
	select {
	case <-s.closed:
		reason = refusedStopping
	default:
	}
	s.metrics.refused[reason].Inc()
	_ = c.Close()
	s.remove(c)
	leave()
}

func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.serving.Add(1)
	s.conns[c] = false
	s.opening++
	return true
}

// recognise records that c speaks HTTP/2.
func (s *Server) recognise(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
	s.opening--
}

// countOpening returns how many connections wait for their turn or are in their handshake.
func (s *Server) countOpening() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.opening)
}

func (s *Server) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.conns[c] {
		s.opening--
	}
	delete(s.conns, c)
	s.serving.Done()
}

// shut closes the connections whose protocol is not known yet, or all, and refuses new ones.
func (s *Server) shut(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		close(s.closed)
	}
	for c, isHTTP2 := range s.conns {
		if all || !isHTTP2 {
			_ = c.Close() // its server notices by reading
		}
	}
}

// Shutdown accepts nothing more, notifies the peers, and returns when the last
// request and stream have ended and their connections are closed, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
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
		s.http2.close()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all connections. It does not wait for handlers.
func (s *Server) Close() error {
	err := s.http1.Close()
	s.shut(true)
	s.serving.Wait()
	s.http2.close()
	return err
}
