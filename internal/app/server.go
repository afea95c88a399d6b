package app

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// newServer serves HTTP/1.1 and plaintext HTTP/2 on one connection each.
//
// There is no ReadTimeout and no WriteTimeout: both count from the start of a
// stream and would end it. Instead a peer has ReadHeaderTimeout for its first
// bytes, IdleTimeout without a request, SendPingTimeout+PingTimeout to show that
// it is there (an idle stream lives on as long as it answers pings), and
// WriteByteTimeout to take what is sent to it.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(serverLog{log.Handler()}, slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			// An agent uses one; a proxy may carry many agents.
			MaxConcurrentStreams: 1000,
			// A connection keeps a buffer as large as its largest frame.
			MaxReadFrameSize: 16 << 10,
			// What one agent can queue before it is read: some 300 heartbeats.
			MaxReceiveBufferPerStream:     64 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout:               20 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              30 * time.Second,
		},
	}
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
