package app

import (
	"net/http"
	"sync"
)

// gate counts the requests in a handler, so that the store can be closed after the last of
// them: http.Server forgets requests whose connection has ended.
type gate struct {
	handler http.Handler

	mu   sync.Mutex
	open int
	// idle is closed when no request is left; nil before shut.
	idle chan struct{}
}

// ServeHTTP passes the request on unless the gate is shut.
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

// shut refuses new requests. The channel is closed when none is left. It must be called only
// once.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = make(chan struct{})
	if g.open == 0 {
		close(g.idle)
	}
	return g.idle
}
