package httpserver

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A connection waits for the turn of another one, and all get theirs without a timer.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const all = 50
		in, served := newTurns(), make(chan bool, all)
		in <- struct{}{} // the turn of another one
		for range all {
			go func() {
				in.wait(nil)
				served <- true
			}()
		}
		synctest.Wait()
		require.Empty(t, served)
		<-in
		synctest.Wait()
		require.Len(t, served, all)
		require.Empty(t, in)
	})
}

// First come, first served.
func TestTurnsAreInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const all = 200
		in := newTurns()
		in <- struct{}{} // the turn of another one
		var served []int // each in its turn
		for n := range all {
			go func() {
				if in.begin(nil) {
					served = append(served, n)
					in.end()
				}
			}()
			synctest.Wait() // until it waits
		}
		<-in
		synctest.Wait()
		require.Len(t, served, all)
		require.True(t, slices.IsSorted(served), served)
	})
}

// delayed serves on a free port, and delays all connections until ready is called.
func delayed(t *testing.T, s *Server) (addr string, ready func()) {
	t.Helper()
	l := listen(t)
	d := newDivider(l, s)
	d.turns <- struct{}{}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.http1.Serve(d) })
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		serving.Wait()
	})
	return l.Addr().String(), func() { <-d.turns }
}

func (s *Server) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Connections whose turn has not come are accepted and kept open, and served later.
func TestConnectionsAreDelayedAndNotRefused(t *testing.T) {
	t.Parallel()
	const all = 100
	s := New(plaintext(http.NotFoundHandler()))
	addr, ready := delayed(t, s)
	var conns []net.Conn
	for range all {
		conns = append(conns, dialFrom(t, "127.0.0.1", addr))
	}
	require.Eventually(t, func() bool { return s.accepted() == all }, atMost, interval)
	ready()
	for _, c := range conns {
		requireServed(t, c)
	}
}

// A shutdown closes the connections whose turn has not come, and does not wait for it.
func TestShutdownEndsDelays(t *testing.T) {
	t.Parallel()
	s := New(plaintext(http.NotFoundHandler()))
	addr, _ := delayed(t, s)
	c := dialFrom(t, "127.0.0.1", addr)
	require.Eventually(t, func() bool { return s.accepted() == 1 }, atMost, interval)
	require.NoError(t, s.Shutdown(t.Context()))
	requireClosed(t, c)
	requireRefused(t, s, refusedStopping, 1)
}
