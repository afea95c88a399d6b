package rpc

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// inMemory is the base of URLs of a pipeServer.
const inMemory = "http://memory"

// pipeServer is serveTalkative in memory. In a bubble calls take no time, so what must arrive
// within shortly does.
type pipeServer struct {
	pipes *pipeListener
	open  *requests
	admin talkative
}

func servePipes(t *testing.T) pipeServer {
	t.Helper()
	open, admin := newTalkative()
	s := pipeServer{newPipeListener(), open, admin}
	serveOn(t, s.pipes, open, shortly)
	return s
}

// client returns a client of the server that speaks one version of HTTP.
func (s pipeServer) client(t *testing.T, version int) *http.Client {
	t.Helper()
	c := client(t, version)
	transportOf(t, c).DialContext = s.pipes.dial
	return c
}

// sayAfter sends a message after each of these pauses, until ctx is done.
func (s pipeServer) sayAfter(ctx context.Context, pauses ...time.Duration) {
	for _, pause := range pauses {
		time.Sleep(pause) // fake clock
		select {
		case s.admin.say <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}
