package app

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/readiness"
)

// reasons returns why the service is not ready, by check.
func (f *fakeService) reasons(t *testing.T) map[string]string {
	t.Helper()
	failed := map[string]string{}
	for _, r := range f.ready.Run(t.Context()) {
		if r.Err != nil {
			failed[r.Name] = r.Err.Error()
		}
	}
	return failed
}

// The controller is ready once connections are accepted on both addresses, and not after one
// of its listeners is gone.
func TestListenersCheck(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	a := newTestApp(t, testOptions(t), svc)
	require.Equal(t, map[string]string{"listeners": "connections are accepted on 0 of 2 listeners"}, svc.reasons(t))
	r := a.start(t.Context())
	require.Empty(t, svc.reasons(t))
	require.NoError(t, a.bound.grpc.Close())
	require.ErrorIs(t, <-r.failed, net.ErrClosed)
	require.Eventually(t, func() bool {
		return svc.reasons(t)["listeners"] == "connections are accepted on 1 of 2 listeners"
	}, time.Minute, time.Millisecond)
	require.NoError(t, a.stop(t.Context(), r))
	require.Equal(t, "the controller is stopping", svc.reasons(t)[readiness.NotDraining])
}

// A controller whose addresses are equal is ready with one listener.
func TestListenersCheckOfOne(t *testing.T) {
	t.Parallel()
	a := newTestApp(t, testOptions(t), newFakeService())
	defer a.Close()
	require.NoError(t, a.bound.grpc.Close())
	a.bound.grpc = a.bound.http
	require.ErrorContains(t, a.checkListeners(t.Context()), "0 of 1")
	a.serving.Add(1)
	require.NoError(t, a.checkListeners(t.Context()))
}

// draining starts a program with a drain delay, and returns after the first signal.
func draining(t *testing.T, svc *fakeService, delay string) (p *process, status <-chan int) {
	t.Helper()
	p = newProcess(svc)
	ended := make(chan int, 1)
	args := freePorts(t, "--drain-delay="+delay)
	go func() { ended <- p.run(args) }()
	<-svc.running
	require.Eventually(t, func() bool { return svc.reasons(t)["listeners"] == "" }, time.Minute, time.Millisecond)
	p.kill <- syscall.SIGTERM
	<-svc.ready.Draining()
	return p, ended
}

// With a drain delay a signal makes the controller unready, and everything else is served until
// the delay is over.
func TestSignalDrains(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	p, status := draining(t, svc, "5m")
	reasons := svc.reasons(t)
	require.Len(t, reasons, 1)
	require.Contains(t, reasons[readiness.NotDraining], "draining: stops in ")
	require.Eventually(t, func() bool { return p.err.String() != "" }, time.Minute, time.Millisecond)
	require.NotContains(t, svc.history(), "end sessions")
	p.kill <- os.Interrupt
	require.Equal(t, exitOK, <-status)

	svc = newFakeService()
	p, status = draining(t, svc, "100ms")
	require.Equal(t, exitOK, <-status, p.err.String())
	require.Contains(t, p.err.String(), "draining; another signal begins the stop  signal=terminated drain_delay=100ms")
	require.Contains(t, p.err.String(), "stopping; another signal stops at once")
	require.Equal(t, []string{"run", "end sessions", "run ended", "close"}, svc.history())
}

// A second signal skips the rest of the delay: the stop that begins then is graceful. A third
// one ends it at once.
func TestSignalsWhileDraining(t *testing.T) {
	t.Parallel()
	for _, third := range []bool{false, true} {
		svc := newFakeService()
		release := make(chan struct{})
		svc.endSessions = func(context.Context) { <-release }
		p, status := draining(t, svc, "5m")
		p.kill <- os.Interrupt
		<-svc.ended
		if third {
			p.kill <- os.Interrupt
			require.Equal(t, exitFailure, <-status)
			require.Contains(t, p.err.String(), "stopped at once by another signal")
			require.NotContains(t, svc.history(), "close")
		}
		close(release)
		<-svc.closed
		if !third {
			require.Equal(t, exitOK, <-status, p.err.String())
		}
	}
}

// A signal that arrives twice at once counts once, in each part of a stop.
func TestBurstsOfSignals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		p := program{signals: signals, burst: signalBurst}
		for range 2 { // the drain, and the stop
			awaited := make(chan bool)
			began := time.Now()
			go func() {
				over, _ := p.await(nil, nil)
				awaited <- over
			}()
			signals <- os.Interrupt
			time.Sleep(signalBurst + time.Millisecond) // fake clock
			signals <- os.Interrupt
			require.False(t, <-awaited)
			require.Greater(t, time.Since(began), signalBurst)
		}
	})
}

// A failure during the delay ends it.
func TestFailureWhileDraining(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	fail := make(chan struct{})
	svc.run = func(context.Context) error { <-fail; return errors.New("disk on fire") }
	p, status := draining(t, svc, "5m")
	close(fail)
	require.Equal(t, exitFailure, <-status)
	require.Contains(t, p.err.String(), "disk on fire")
}

// The delay is the time before the stop, to which the limits of the stop do not apply.
func TestDrainTakesTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serving, ended := make(chan *App, 1), make(chan error)
		svc := newFakeService()
		serving <- &App{service: svc}
		began := time.Now()
		over, err := program{burst: signalBurst}.drain(serving, ended, 5*time.Minute, quiet())
		require.False(t, over)
		require.NoError(t, err)
		require.Equal(t, 5*time.Minute, time.Since(began))
	})
}

// A controller that is still starting is stopped without a delay.
func TestNoDrainWhileStarting(t *testing.T) {
	t.Parallel()
	over, err := program{}.drain(make(chan *App), nil, 5*time.Minute, quiet())
	require.False(t, over)
	require.NoError(t, err)
}
