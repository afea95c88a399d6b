package sim

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

const (
	dialTimeout = 10 * time.Second
	pingTimeout = 20 * time.Second
	bufferSize  = 1 << 10 // small, since a fleet has thousands of connections
)

// link is a VM's connection to the controller: one TCP connection at a time, which streams
// share and which can be cut.
type link struct {
	client    commandsconnect.CommandServiceClient
	transport *http.Transport
	refused   atomic.Bool // the latest dial did not reach the controller

	mu   sync.Mutex
	open map[io.Closer]struct{} // connections and dials; nil after cut
}

// newLink does not dial yet. The caller must cut the link.
func newLink(cfg Config, baseURL string) *link {
	l := &link{open: make(map[io.Closer]struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	l.transport = &http.Transport{
		DialContext:        l.dial,
		TLSClientConfig:    cfg.TLS.Clone(),
		Protocols:          protocols,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: cfg.Timing.Ping, PingTimeout: pingTimeout},
		DisableCompression: true,
		ReadBufferSize:     bufferSize,
		WriteBufferSize:    bufferSize,
	}
	client := &http.Client{Transport: bearer{cfg.Token, l.transport}}
	l.client = commandsconnect.NewCommandServiceClient(client, baseURL, connect.WithGRPC())
	return l
}

// dial records the connection so that cut can close it. The transport would continue
// dialing for a request that has ended; cut ends that as well.
func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	underway := &dialing{cancel}
	if !l.keep(underway) {
		return nil, net.ErrClosed
	}
	defer l.forget(underway)
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, network, addr)
	l.refused.Store(err != nil)
	if err != nil {
		return nil, err
	}
	conn := &trackedConn{Conn: raw, link: l}
	if !l.keep(conn) {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	return conn, nil
}

// keep returns false once the link is cut.
func (l *link) keep(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *link) forget(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// cut closes the TCP connection, whatever is using it. The link cannot be used afterwards.
func (l *link) cut() {
	l.mu.Lock()
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for c := range open {
		_ = c.Close()
	}
	l.transport.CloseIdleConnections()
}

// dialing is a dial in progress. Closing it cancels it.
type dialing struct{ cancel context.CancelFunc }

func (d *dialing) Close() error {
	d.cancel()
	return nil
}

// trackedConn removes itself from its link when it is closed.
type trackedConn struct {
	net.Conn
	link *link
}

func (c *trackedConn) Close() error {
	c.link.forget(c)
	return c.Conn.Close()
}

// bearer adds the agent's credential to every request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(req)
}
