package faults

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A controller is stopped behind a load balancer, which learns of that from the controller
// itself: no connection is refused, and the agents of the controller are served until it stops.
func testDrainDelay(t *testing.T) {
	const delay, stopLimit = 5 * time.Second, 10 * time.Second
	first, second := startController(t, "--drain-delay="+delay.String()), startController(t)
	b := startBalancer(t, first.addr, second.addr)
	a := connectTo(t, b.addr, "vm-1")
	a.register(t)
	var opened atomic.Int64
	failed := make(chan error, 1)
	stopOpening := repeat(t, 10*time.Millisecond, func() error {
		if err := getOnce(t, "http://"+b.addr+"/health"); err != nil {
			failed <- err
			return err
		}
		opened.Add(1)
		return nil
	})
	await(t, func() bool { return opened.Load() > 10 }, "no connections")

	signalled := time.Now()
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGTERM))
	first.awaitLine(t, ofMessage("draining; another signal begins the stop"))
	status, text := first.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, text, "draining: stops in ")
	first.send(t, "vm-1", "meanwhile")
	a.expect(t, "meanwhile")
	a.ack(t, "meanwhile")
	first.awaitEnd(t, "meanwhile", succeeded)
	await(t, func() bool { return b.healthy() == second.addr }, "the load balancer does not notice")
	connectTo(t, b.addr, "vm-2")
	require.True(t, second.vm(t, "vm-2").GetConnected())

	a.awaitEnd(t)
	require.GreaterOrEqual(t, time.Since(signalled), delay, "the stream ended during the delay")
	select {
	case <-first.exited:
	case <-time.After(patience):
		require.FailNow(t, "it does not end")
	}
	require.Empty(t, failed, "a connection failed")
	require.Zero(t, first.cmd.ProcessState.ExitCode())
	require.Less(t, time.Since(signalled), delay+stopLimit)
	connectTo(t, b.addr, "vm-1")
	require.True(t, second.vm(t, "vm-1").GetConnected())
	before := opened.Load()
	await(t, func() bool { return opened.Load() > before+10 || len(failed) > 0 }, "no connections")
	stopOpening()
	require.Empty(t, failed, "a connection failed")
}

// getOnce makes a request on a connection of its own.
func getOnce(t *testing.T, url string) error {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(answer.Status))
	}
	return errors.Join(err, answer.Body.Close())
}

// balancer forwards each connection to the first backend whose /ready returned 200 when it was
// last checked. It does not try another one when a connection fails.
type balancer struct {
	addr     string
	backends []string
	up       []atomic.Bool
}

// startBalancer starts a load balancer. It returns when all backends are up.
func startBalancer(t *testing.T, backends ...string) *balancer {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{addr: l.Addr().String(), backends: backends, up: make([]atomic.Bool, len(backends))}
	stop := repeat(t, 200*time.Millisecond, func() error {
		for i, backend := range backends {
			b.up[i].Store(getOnce(t, "http://"+backend+"/ready") == nil)
		}
		return nil
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { b.forward(t, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		stop()
		serving.Wait()
	})
	await(t, func() bool { return b.healthy() == backends[0] && b.up[len(backends)-1].Load() }, "a backend is not ready")
	return b
}

// healthy returns the backend for the next connection; empty if there is none.
func (b *balancer) healthy() string {
	for i := range b.backends {
		if b.up[i].Load() {
			return b.backends[i]
		}
	}
	return ""
}

// forward copies both directions until either ends.
func (b *balancer) forward(t *testing.T, client net.Conn) {
	t.Helper()
	defer client.Close()
	backend, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.healthy())
	if err != nil {
		return
	}
	defer backend.Close()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, backend}, {backend, client}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // until either end is closed
			ended <- struct{}{}
		}()
	}
	select {
	case <-ended:
	case <-t.Context().Done():
	}
}
