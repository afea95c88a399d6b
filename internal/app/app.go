package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// App is one controller: its two addresses, the service behind them and the
// data directory that it has to itself.
type App struct {
	options  Options
	log      *slog.Logger
	stdout   io.Writer
	service  service
	simulate func(ctx context.Context) error
	cert     *certificate // nil for plaintext
	lock     *dataLock
	bound    bound
	gate     *gate
	server   *server
	patience patience
	closed   sync.Once
	closeErr error
}

// patience is how long a stop waits for what.
type patience struct {
	// polite is for sessions and requests to end by themselves.
	polite time.Duration
	// rude is for requests to return once their connections are closed.
	rude time.Duration
	// total is for everything; the stop is given up after it.
	total time.Duration
}

func defaultPatience() patience {
	return patience{polite: 6 * time.Second, rude: time.Second, total: 9500 * time.Millisecond}
}

// New takes the data directory, binds both addresses and opens the store; it
// serves nothing yet. ctx bounds New alone. Either Run or Close must follow. The start-up text goes to
// stdout, unless the log is JSON; all else goes to log. New returns an
// *OptionError when an option breaks a rule.
func New(ctx context.Context, o Options, log *slog.Logger, stdout io.Writer) (*App, error) {
	return newApp(ctx, o, log, stdout, defaultWiring())
}

func newApp(ctx context.Context, o Options, log *slog.Logger, stdout io.Writer, w wiring) (*App, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	database, err := o.DatabasePath()
	if err != nil {
		return nil, err
	}
	http, grpc, err := o.endpoints(ctx, w.lookup)
	if err != nil {
		return nil, err
	}
	cert, err := o.readCertificate(log)
	if err != nil {
		return nil, err
	}
	lock, err := lockData(o.DataDir, database)
	if err != nil {
		return nil, err
	}
	b, err := bind(ctx, http, grpc, log)
	if err != nil {
		lock.release()
		return nil, err
	}
	svc, err := w.newService(ctx, o, log)
	if err != nil {
		b.close()
		lock.release()
		return nil, err
	}
	a := &App{
		options: o, log: log, stdout: stdout, service: svc, cert: cert, lock: lock, bound: b,
		gate: &gate{handler: svc.Handler()}, patience: defaultPatience(),
	}
	var serving, calling *tls.Config
	if cert != nil {
		serving, calling = cert.config(), cert.clientConfig()
	}
	a.server = newServer(a.gate, serving, o.access(), log)
	a.simulate = func(ctx context.Context) error { return w.simulate(ctx, o, a.GRPCAddr(), calling) }
	return a, nil
}

// HTTPAddr returns the bound address of --http-addr.
func (a *App) HTTPAddr() string { return a.bound.http.Addr().String() }

// GRPCAddr returns the bound address of --grpc-addr.
func (a *App) GRPCAddr() string { return a.bound.grpc.Addr().String() }

// Run serves until ctx ends, then stops: it accepts nothing more, ends the
// sessions, lets requests finish, writes what is under way, closes the store and
// frees the data directory. It returns nil when all of that went well, and
// within 10 s in any case. Whatever else ends the service stops it in the same
// way and is returned.
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
	case <-time.After(a.patience.total):
		return errors.Join(failure, errStopTooLong)
	}
}

// errStopTooLong occurs when something does not end although it was asked to;
// only the end of the process ends it.
var errStopTooLong = errors.New("the stop took too long and was given up")

// Close frees what New took, for an App that is not Run.
func (a *App) Close() error {
	a.closed.Do(func() {
		a.bound.close()
		a.closeErr = a.service.Close()
		a.lock.release()
	})
	return a.closeErr
}

// running is what start started.
type running struct {
	// failed takes the first reason to stop of each goroutine.
	failed        chan error
	serving       sync.WaitGroup
	upkeep        sync.WaitGroup
	endUpkeep     context.CancelFunc
	simulators    sync.WaitGroup
	endSimulators context.CancelFunc
}

func (a *App) start(ctx context.Context) *running {
	r := &running{failed: make(chan error, 4)}
	upkeep, endUpkeep := context.WithCancel(ctx)
	r.endUpkeep = endUpkeep
	r.upkeep.Go(func() {
		if err := a.service.Run(upkeep); err != nil && upkeep.Err() == nil {
			r.failed <- fmt.Errorf("upkeep: %w", err)
		}
	})
	for _, l := range a.bound.all() {
		r.serving.Go(func() {
			if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				r.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
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

// stop ends everything in the order in which it depends on each other.
func (a *App) stop(ctx context.Context, r *running) error {
	r.endSimulators()
	polite, cancel := context.WithTimeout(ctx, a.patience.polite)
	defer cancel()
	// The sessions end while the server, which has stopped accepting, waits for
	// them: ended before, agents would be back before the stop.
	var sessions sync.WaitGroup
	sessions.Go(func() { a.service.EndSessions(polite) })
	if err := a.server.Shutdown(polite); err != nil {
		a.log.Warn("closing connections that did not end in time")
		_ = a.server.Close() // It is being given up.
	}
	sessions.Wait()
	r.simulators.Wait()
	r.serving.Wait()
	select {
	case <-a.gate.shut():
	case <-time.After(a.patience.rude):
		a.log.Warn("requests go on although their connections are closed")
	}
	r.endUpkeep()
	r.upkeep.Wait()
	return a.Close()
}
