package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/httpserver"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// App is one controller: its two addresses, the service behind them and the exclusive use of
// its data directory.
type App struct {
	options  config.Options
	log      *slog.Logger
	stdout   io.Writer
	service  service
	simulate func(ctx context.Context) error
	cert     *httpserver.Certificate // nil means plaintext
	lock     *dataLock
	bound    bound
	gate     *gate
	socket   *controlSocket // nil if it could not be created
	serving  atomic.Int64   // how many listeners are being accepted on
	server   *httpserver.Server
	metrics  *httpserver.Server // of --metrics-addr; nil without it
	timeouts stopTimeouts
	closed   sync.Once
	closeErr error
}

// stopTimeouts limit the parts of a stop.
type stopTimeouts struct {
	// graceful is how long sessions and requests may take to end by themselves.
	graceful time.Duration
	// force is how long requests may take to return after their connections are closed.
	force time.Duration
	// total limits the whole stop, which fails after it.
	total time.Duration
}

func defaultStopTimeouts() stopTimeouts {
	return stopTimeouts{graceful: 6 * time.Second, force: time.Second, total: 9500 * time.Millisecond}
}

// New locks the data directory, binds both addresses and opens the store; it serves nothing
// yet. ctx applies only to New. Either Run or Close must follow. The start-up text goes to
// stdout, unless the log is JSON; everything else goes to log. New returns a
// *config.OptionError when an option is invalid.
//
// Lines below the level of the options are not passed to log, until an operator changes the
// level.
func New(ctx context.Context, o config.Options, log *slog.Logger, stdout io.Writer) (*App, error) {
	return newApp(ctx, o, log, stdout, defaultWiring())
}

func newApp(ctx context.Context, o config.Options, log *slog.Logger, stdout io.Writer, w wiring) (*App, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	log, _ = controlled(o, log)
	database, err := o.DatabasePath()
	if err != nil {
		return nil, err
	}
	endpoints, err := o.Endpoints(ctx, w.lookup)
	if err != nil {
		return nil, err
	}
	metrics := metric.NewRegistry()
	registerProcess(metrics, w.droppedLines)
	cert, err := readCertificate(o, log, metrics)
	if err != nil {
		return nil, err
	}
	clientCAs, err := readClientCAs(o, log)
	if err != nil {
		return nil, err
	}
	lock, err := lockData(o.DataDir, database)
	if err != nil {
		return nil, err
	}
	b, err := bind(ctx, endpoints, log)
	if err != nil {
		lock.release()
		return nil, err
	}
	svc, err := w.newService(ctx, o, front{endpoints, clientCAs}, log, metrics)
	if err != nil {
		b.close()
		lock.release()
		return nil, err
	}
	a := &App{
		options: o, log: log, stdout: stdout, service: svc, cert: cert, lock: lock, bound: b,
		gate: &gate{handler: svc.Handler()}, timeouts: defaultStopTimeouts(),
	}
	serving, calling := tlsConfigs(cert, clientCAs)
	server := httpserver.Options{
		Handler: a.gate, TLS: serving, Proxies: o.ProxyPrefixes(), Crowded: httpserver.Crowded(o.Simulate),
		ConnContext: withConnection, Log: log, Metrics: metrics,
	}
	a.server = httpserver.New(server)
	if b.metrics != nil {
		a.metrics = newMetricsServer(o, server, metrics, log)
	}
	if a.socket, err = listenControl(ctx, o.DataDir, a.gate, log); err != nil {
		log.Warn("operators cannot use the control socket", logkey.Error, err)
	}
	svc.Ready().Add(readiness.Check{Name: "listeners", Run: a.checkListeners})
	a.simulate = func(ctx context.Context) error { return w.simulate(ctx, o, a.GRPCAddr(), calling) }
	return a, nil
}

// readCertificate returns the certificate of the options, nil if they name none, or a
// *config.OptionError.
func readCertificate(o config.Options, log *slog.Logger, metrics prometheus.Registerer) (*httpserver.Certificate, error) {
	given, err := o.TLS()
	if err != nil || !given {
		return nil, err
	}
	return httpserver.NewCertificate([2]string{o.TLSCert, o.TLSKey}, o.Certificate, log, metrics)
}

// readClientCAs returns the CAs of operators' client certificates, nil if the options name none,
// or a *config.OptionError.
func readClientCAs(o config.Options, log *slog.Logger) (*httpserver.ClientCAs, error) {
	given, err := o.ClientCA()
	if err != nil || !given {
		return nil, err
	}
	return httpserver.NewClientCAs(o.OperatorClientCA, o.ClientCAs, log)
}

// tlsConfigs returns the configurations of TLS for the servers and for the simulated agents; nil
// without a certificate.
func tlsConfigs(cert *httpserver.Certificate, clientCAs *httpserver.ClientCAs) (serving, calling *tls.Config) {
	if cert != nil {
		serving, calling = cert.ServerConfig(), cert.ClientConfig()
	}
	if clientCAs != nil {
		serving = clientCAs.Accept(serving)
	}
	return serving, calling
}

// withConnection returns a context for the calls on an HTTP/2 connection.
func withConnection(ctx context.Context, c httpserver.Connection) context.Context {
	return rpc.WithConnection(ctx, connection{c})
}

// connection adapts a connection of the server to package rpc.
type connection struct{ served httpserver.Connection }

// Ended implements rpc.Connection.
func (c connection) Ended() error {
	err := c.served.Ended()
	if errors.Is(err, httpserver.ErrPingTimeout) {
		return rpc.ErrPingTimeout
	}
	return err
}

// HTTPAddr returns the bound address of --http-addr.
func (a *App) HTTPAddr() string { return a.bound.http.Addr().String() }

// GRPCAddr returns the bound address of --grpc-addr.
func (a *App) GRPCAddr() string { return a.bound.grpc.Addr().String() }

// MetricsAddr returns the bound address of --metrics-addr; empty without it.
func (a *App) MetricsAddr() string {
	if a.bound.metrics == nil {
		return ""
	}
	return a.bound.metrics.Addr().String()
}

// checkListeners returns nil while connections are accepted on both addresses.
func (a *App) checkListeners(context.Context) error {
	if all, serving := len(a.bound.api()), a.serving.Load(); serving < int64(all) {
		return fmt.Errorf("connections are accepted on %d of %d listeners", serving, all)
	}
	return nil
}

// Drain makes readiness checks fail from now on, while everything is served as before. stops is
// when the caller intends to stop.
func (a *App) Drain(stops time.Time) { a.service.Ready().Drain(stops) }

// Run serves until ctx ends, then stops: it accepts nothing more, ends the sessions, waits for
// requests, writes pending data, closes the store and unlocks the data directory. It returns
// nil if all of that succeeded, and within 10 s in any case. Any other error that ends the
// service stops it in the same way and is returned.
func (a *App) Run(ctx context.Context) error {
	r := a.start(context.WithoutCancel(ctx))
	a.announce(ctx)
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-r.failed:
	}
	stopped := make(chan error, 1)
	go func() { stopped <- a.stop(context.WithoutCancel(ctx), r) }()
	select {
	case err := <-stopped:
		return errors.Join(failure, err)
	case <-time.After(a.timeouts.total):
		return errors.Join(failure, errStopTooLong)
	}
}

// errStopTooLong means that something did not end in time; only the end of the process ends
// it.
var errStopTooLong = errors.New("the stop took too long and was aborted")

// Close releases the resources of an App that is not Run.
func (a *App) Close() error {
	a.closed.Do(func() {
		a.bound.close()
		if a.socket != nil {
			a.socket.close()
		}
		a.closeErr = a.service.Close()
		a.lock.release()
	})
	return a.closeErr
}

// running has what start has started.
type running struct {
	// failed receives the first error of each goroutine.
	failed        chan error
	serving       sync.WaitGroup
	metrics       sync.WaitGroup
	upkeep        sync.WaitGroup
	endUpkeep     context.CancelFunc
	simulators    sync.WaitGroup
	endSimulators context.CancelFunc
}

func (a *App) start(ctx context.Context) *running {
	r := &running{failed: make(chan error, 5)}
	serve := func(s *httpserver.Server, l net.Listener) {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	}
	for _, l := range a.bound.api() {
		a.serving.Add(1) // before the start is announced, so that a check of readiness right after it passes
		r.serving.Go(func() {
			defer a.serving.Add(-1)
			serve(a.server, l)
		})
	}
	if a.socket != nil {
		r.serving.Go(func() { a.socket.serve(a.log) })
	}
	if a.metrics != nil {
		r.metrics.Go(func() { serve(a.metrics, a.bound.metrics) })
	}
	upkeep, endUpkeep := context.WithCancel(ctx)
	r.endUpkeep = endUpkeep
	r.upkeep.Go(func() {
		if err := a.service.Run(upkeep); err != nil && upkeep.Err() == nil {
			r.failed <- fmt.Errorf("upkeep: %w", err)
		}
	})
	simulated, endSimulators := context.WithCancel(ctx)
	r.endSimulators = endSimulators
	if a.options.Simulate > 0 {
		r.simulators.Go(func() {
			if err := a.simulate(simulated); err != nil && simulated.Err() == nil {
				r.failed <- fmt.Errorf("simulate: %w", err)
			}
		})
	}
	return r
}

// stop ends everything in the order of dependencies.
func (a *App) stop(ctx context.Context, r *running) error {
	a.Drain(time.Now())
	r.endSimulators()
	graceful, cancel := context.WithTimeout(ctx, a.timeouts.graceful)
	defer cancel()
	// The sessions end while the server, which has stopped accepting, waits for them: if they
	// ended earlier, agents would reconnect before the stop.
	var sessions sync.WaitGroup
	sessions.Go(func() { a.service.EndSessions(graceful) })
	if err := a.server.Shutdown(graceful); err != nil {
		a.log.Warn("closing connections that did not end in time")
		_ = a.server.Close() // The stop is being aborted.
	}
	sessions.Wait()
	if a.socket != nil {
		a.socket.close()
	}
	r.simulators.Wait()
	r.serving.Wait()
	select {
	case <-a.gate.shut():
	case <-time.After(a.timeouts.force):
		a.log.Warn("requests still running although their connections are closed")
	}
	r.endUpkeep()
	r.upkeep.Wait()
	if a.metrics != nil { // last, so that the stop can be observed
		_ = a.metrics.Close()
		r.metrics.Wait()
	}
	return a.Close()
}
