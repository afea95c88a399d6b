package oidc

import (
	"sync"
	"time"
)

// fetchInterval is the minimum time between two successful fetches of an issuer's keys, and the
// maximum between two attempts while it fails.
const fetchInterval = 30 * time.Second

// firstRetry is the time until the second attempt; it doubles with each further one.
const firstRetry = time.Second

// gate limits how often an issuer is asked. It is safe for concurrent use.
type gate struct {
	mu        sync.Mutex
	next      time.Time
	failures  int
	succeeded bool // once
}

// enter returns zero if the issuer may be asked now; done must follow. Otherwise it returns the
// time until then.
func (g *gate) enter(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait := g.next.Sub(now); wait > 0 {
		return wait
	}
	g.next = now.Add(fetchInterval)
	return 0
}

// done records the outcome. After a failure the next attempt may be earlier, unless there was
// a success before: without any answer nobody can authenticate.
func (g *gate) done(ok bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case ok:
		g.succeeded, g.failures = true, 0
	case !g.succeeded:
		g.next = now.Add(min(firstRetry<<min(g.failures, 10), fetchInterval))
		g.failures++
	}
}

// wait returns the time until enter returns zero.
func (g *gate) wait(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.next.Sub(now))
}
