package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// testOptions are the options of a controller on free ports with its own directory.
func testOptions(tb testing.TB) config.Options {
	tb.Helper()
	o := config.Defaults()
	o.HTTPAddr, o.GRPCAddr, o.DataDir = "localhost:0", "127.0.0.1:0", tb.TempDir()
	return o
}

func newTestApp(t *testing.T, o config.Options, svc *fakeService) *App {
	t.Helper()
	a, err := newApp(t.Context(), o, quiet(), io.Discard, svc.wiring())
	require.NoError(t, err)
	return a
}

// startApp runs a and returns a function that stops it and returns Run's result.
func startApp(t *testing.T, a *App) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func h1Client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func h2cClient(t *testing.T) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

// listen listens on a free port.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

func openStream(t *testing.T, c *http.Client, url string) *http.Response {
	t.Helper()
	body, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	require.NoError(t, err)
	res, err := c.Do(req)
	require.NoError(t, err)
	require.Equal(t, 2, res.ProtoMajor)
	return res
}

func requireServes(t *testing.T, addr string) {
	t.Helper()
	for major, c := range map[int]*http.Client{1: h1Client(t), 2: h2cClient(t)} {
		res, err := get(t, c, "http://"+addr)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, major, res.ProtoMajor)
	}
}

// Both addresses serve HTTP/1.1 and HTTP/2, on separate ports if port 0 is given, and a stop
// frees ports and data directory for the next controller.
func TestServesBothAddresses(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.GRPCAddr = o.HTTPAddr
	var first string
	for range 2 {
		svc := newFakeService()
		a := newTestApp(t, o, svc)
		require.NotEqual(t, a.HTTPAddr(), a.GRPCAddr())
		stop := startApp(t, a)
		requireServes(t, a.HTTPAddr())
		requireServes(t, a.GRPCAddr())
		require.NoError(t, stop())
		require.Equal(t, []string{"run", "end sessions", "run ended", "close"}, svc.history())
		_, err := new(net.Dialer).DialContext(t.Context(), "tcp", a.HTTPAddr())
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "a stopped controller does not listen")
		if first == "" {
			first, o.HTTPAddr = a.HTTPAddr(), a.HTTPAddr() // the port is free again
		}
	}
}

// Equal addresses, in any form, share one listener.
func TestEqualAddressesShareAListener(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	var a *App
	// Another process may use the port between the two calls.
	for try := 0; a == nil && try < 10; try++ {
		l := listen(t)
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, l.Close())
		o.HTTPAddr, o.GRPCAddr = "localhost:"+port, "127.0.0.1:"+port
		a, _ = newApp(t.Context(), o, quiet(), io.Discard, newFakeService().wiring())
	}
	require.NotNil(t, a)
	require.Equal(t, a.HTTPAddr(), a.GRPCAddr())
	stop := startApp(t, a)
	requireServes(t, a.HTTPAddr())
	require.NoError(t, stop())
}

// Only one controller at a time can use a data directory and a database.
func TestSecondControllerIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*config.Options){
		"same data directory":      func(*config.Options) {},
		"same database, elsewhere": func(o *config.Options) { o.DataDir = filepath.Join(o.DataDir, "other") },
		"same database, as a URL":  func(o *config.Options) { o.DataDir += "/x"; o.DatabaseURL = "sqlite://" + o.DatabaseURL },
		"same directory, unclean":  func(o *config.Options) { o.DataDir += "/."; o.DatabaseURL += "2" },
		"its own database":         func(o *config.Options) { o.DatabaseURL = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			o.DatabaseURL = filepath.Join(o.DataDir, "fleet.db")
			first, err := New(t.Context(), o, quiet(), io.Discard)
			require.NoError(t, err)
			second := o
			change(&second)
			_, err = New(t.Context(), second, quiet(), io.Discard)
			require.ErrorContains(t, err, "another controller uses the data")
			require.ErrorContains(t, err, o.DataDir)
			require.NoError(t, first.Close())
			third, err := New(t.Context(), second, quiet(), io.Discard)
			require.NoError(t, err)
			require.NoError(t, third.Close())
		})
	}
}

// A controller that fails to start holds no port and no lock.
func TestFailedStartFreesEverything(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	broken := newFakeService().wiring()
	broken.newService = func(context.Context, config.Options, front, *slog.Logger, *prometheus.Registry) (service, error) {
		return nil, errors.New("no store")
	}
	_, err := newApp(t.Context(), o, quiet(), io.Discard, broken)
	require.ErrorContains(t, err, "no store")

	taken := listen(t)
	defer taken.Close()
	clash := o
	clash.GRPCAddr = taken.Addr().String()
	_, err = newApp(t.Context(), clash, quiet(), io.Discard, newFakeService().wiring())
	require.ErrorContains(t, err, "choose another one with --grpc-addr")

	require.NoError(t, newTestApp(t, o, newFakeService()).Close())
}

// The error for a data directory that cannot be created names the option.
func TestDataDirError(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	file := filepath.Join(o.DataDir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	o.DataDir = filepath.Join(file, "data")
	_, err := newApp(t.Context(), o, quiet(), io.Discard, newFakeService().wiring())
	require.ErrorContains(t, err, o.DataDir)
	require.ErrorContains(t, err, "--data-dir")
}

// Other users cannot read the data directory.
func TestDataDirMode(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.DataDir = filepath.Join(o.DataDir, "new", "data")
	require.NoError(t, newTestApp(t, o, newFakeService()).Close())
	info, err := os.Stat(o.DataDir)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o007)
	require.FileExists(t, filepath.Join(o.DataDir, config.StateDir, "lock"))
}

// A stream that ignores the end of the sessions is cut, and the stop succeeds.
func TestStreamThatIgnoresTheEndIsCut(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	svc.stubborn = true
	a := newTestApp(t, testOptions(t), svc)
	a.timeouts.graceful = 50 * time.Millisecond
	stop := startApp(t, a)
	res := openStream(t, h2cClient(t), "http://"+a.GRPCAddr()+"/stream")
	defer res.Body.Close()
	require.NoError(t, stop())
	require.Equal(t, []string{"run", "end sessions", "stream ended", "run ended", "close"}, svc.history())
}

// The store is closed even if a request never returns.
func TestBlockedRequestIsAbandoned(t *testing.T) {
	t.Parallel()
	hang, entered := make(chan struct{}), make(chan struct{})
	svc := newFakeService()
	a := newTestApp(t, testOptions(t), svc)
	left := make(chan struct{})
	a.gate.handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-hang
		close(left)
	})
	a.timeouts.graceful, a.timeouts.force = 10*time.Millisecond, 10*time.Millisecond
	stop := startApp(t, a)
	failed := make(chan error, 1)
	client := h2cClient(t)
	go func() {
		res, err := get(t, client, "http://"+a.HTTPAddr())
		if err == nil {
			err = res.Body.Close()
		}
		failed <- err
	}()
	<-entered
	require.NoError(t, stop())
	require.Error(t, <-failed)
	require.Equal(t, "close", svc.history()[3])
	close(hang)
	<-left
}

// The store is closed after the last request has returned, even if the server has forgotten
// its connection.
func TestStoreOutlivesRequests(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	a := newTestApp(t, testOptions(t), svc)
	a.timeouts.force = a.timeouts.total
	entered, release := make(chan struct{}), make(chan struct{})
	a.gate.handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
		svc.note("request ended")
	})
	go a.gate.ServeHTTP(nil, nil) // as a request that the server does not know of
	<-entered
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- a.Run(ctx) }()
	<-svc.running
	cancel()
	require.Eventually(t, func() bool {
		a.gate.mu.Lock()
		defer a.gate.mu.Unlock()
		return a.gate.idle != nil && a.gate.open == 1
	}, 5*time.Second, time.Millisecond, "the stop waits for the request")
	close(release)
	require.NoError(t, <-ended)
	require.Equal(t, []string{"run", "end sessions", "request ended", "run ended", "close"}, svc.history())
}

// A stop that blocks is aborted with an error.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	svc := newFakeService()
	svc.run = func(context.Context) error { <-release; return nil }
	a := newTestApp(t, testOptions(t), svc)
	a.timeouts.total = 20 * time.Millisecond
	require.ErrorIs(t, startApp(t, a)(), errStopTooLong)
	close(release)
	<-svc.closed
}

// The timeouts of a stop are within the promised 10 s.
func TestStopTimeouts(t *testing.T) {
	t.Parallel()
	p := defaultStopTimeouts()
	require.Less(t, p.total+flushTime, 10*time.Second)
	require.Less(t, p.graceful+p.force, p.total)
}

// The failure of a listener or a simulation ends the controller gracefully.
func TestFailureEndsTheController(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(*App, *fakeService)
		fail    func(*App)
		want    string
	}{
		"http listener": {fail: func(a *App) { _ = a.bound.http.Close() }, want: "serve 127.0.0.1:"},
		"grpc listener": {fail: func(a *App) { _ = a.bound.grpc.Close() }, want: "serve 127.0.0.1:"},
		"simulation": {prepare: func(a *App, svc *fakeService) {
			a.options.Simulate = 1
			a.simulate = func(context.Context) error { <-svc.running; return errors.New("no agents") }
		}, want: "simulate: no agents"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := newFakeService()
			a := newTestApp(t, testOptions(t), svc)
			if test.prepare != nil {
				test.prepare(a, svc)
			}
			ended := make(chan error, 1)
			go func() { ended <- a.Run(t.Context()) }()
			<-svc.running
			if test.fail != nil {
				test.fail(a)
			}
			require.ErrorContains(t, <-ended, test.want)
			require.Equal(t, []string{"run", "end sessions", "run ended", "close"}, svc.history())
		})
	}
}
