package app

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/auth/oidc"
	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/maintenance"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/rpc"
	"github.com/mig-controller/mig-controller/internal/session"
	"github.com/mig-controller/mig-controller/internal/sim"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
	"github.com/mig-controller/mig-controller/internal/traceexport"
	"github.com/mig-controller/mig-controller/internal/tracing"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// controller implements service with its parts.
type controller struct {
	clock       *wallclock.Clock
	ready       *readiness.Checks
	engine      *engine.Engine
	journal     *journal.Journal // nil if switched off
	sessions    *session.Registry
	maintenance *maintenance.Maintenance // nil until the rest has started
	control     *control.Control
	tokens      *auth.Tokens
	operators   *auth.Authenticator
	rejections  *audit.Rejections
	registrar   *registration.Registrar
	tokenFile   *registration.FileWatch // nil without a token file
	handler     http.Handler
	summary     summary
	log         *slog.Logger
	level       *logLevel
	traces      *traceexport.Provider // nil if they are off
}

// newService opens the store and the journal and starts the background work.
func newService(
	ctx context.Context, o config.Options, f front, log *slog.Logger, metrics *prometheus.Registry, extra rpc.Extra,
) (service, error) {
	log, level := controlled(o, log)
	c := &controller{clock: wallclock.System(), ready: readiness.New(), level: level, log: log}
	if err := c.open(ctx, o, f, log, metrics); err != nil {
		return nil, errors.Join(err, c.Close()) //nolint:contextcheck // a close is not cancelled
	}
	c.control = control.New(control.Options{
		Engine: c.engine, Tokens: c.tokens, Defaults: commandDefaults(o), Clock: c.clock.Now, Log: log, Traces: c.commandTraces(), Metrics: metrics,
	})
	c.rejections = audit.NewRejections(c.engine, c.clock.Now, log) //nolint:contextcheck // it outlives ctx
	c.operators = auth.New(c.authentication(o, f, log, metrics))
	requests := rpc.NewRequests(metrics)
	interceptors, err := c.interceptors(log, requests)
	if err != nil {
		return nil, errors.Join(err, c.Close()) //nolint:contextcheck // as above
	}
	page := metric.Page(metrics, log)
	if o.MetricsAddr != "" {
		page = nil // it has an address of its own
	}
	handler := rpc.AllowOrigins(rpc.NewHandler(rpc.Config{
		Agents:   c.sessions,
		Commands: rpc.NewStreamService(c.sessions, Version(), log),
		Admin: rpc.NewAdminService(c.control, rpc.Server{
			Version: Version(), StartedAt: now(), Sessions: c.sessionCount, LiveVMs: c.sessions.LiveVMs, Log: level,
		}),
		Access: rpc.NewAccessService(c.tokens, c.control), Operators: c.operators,
		Ready: c.ready, Warnings: c.summary.Warnings,
		Requests: requests, MetricsPage: page,
		Stopping: c.sessions.Stopping(),
		Options:  []connect.HandlerOption{connect.WithInterceptors(interceptors...)},
		Extra:    extra,
	}), o.AllowOrigins)
	c.handler = rpc.WithTimeouts(restrictBrowsers(handler, o, log), rpc.CallTimeout)
	return c, nil
}

// authentication returns the options for how operators authenticate.
func (c *controller) authentication(o config.Options, f front, log *slog.Logger, metrics prometheus.Registerer) auth.Options {
	options := auth.Options{
		Tokens: c.tokens, Exposed: f.endpoints.Exposed(), Insecure: o.InsecureOperators, Metrics: metrics,
		Rejected: c.rejections.Record,
	}
	if len(o.Operators.OIDC) > 0 {
		options.Identity = oidc.New(o.Operators.OIDC, nil, c.clock.Now, log, metrics)
	}
	if f.clientCAs != nil {
		options.Certificates = auth.NewCertificates(o.Operators.Certificates, f.clientCAs.Trusts, c.clock.Now)
	}
	return options
}

// interceptors returns those of all calls, outermost first.
func (c *controller) interceptors(log *slog.Logger, requests *rpc.Requests) ([]connect.Interceptor, error) {
	all := []connect.Interceptor{rpc.NewErrorInterceptor(log, requests), rpc.NewAuditInterceptor(c.engine, log, c.clock.Now)}
	if c.traces == nil {
		return all, nil
	}
	traced, err := rpc.NewTraceInterceptor(c.traces.Requests(), c.traces.Propagator())
	return append([]connect.Interceptor{traced}, all...), err
}

// commandTraces returns the source of the spans of commands; nil if traces are off.
func (c *controller) commandTraces() *tracing.Commands {
	if c.traces == nil {
		return nil
	}
	return tracing.NewCommands(c.traces.Requests(), c.traces.Linked())
}

func (c *controller) open(ctx context.Context, o config.Options, f front, log *slog.Logger, metrics prometheus.Registerer) error {
	pools := metric.NewPools(o.MetricsPools)
	var err error
	if c.traces, err = startTraces(ctx, log); err != nil {
		return err
	}
	if c.registrar, err = o.Registrar(metrics); err != nil {
		return err
	}
	path, err := o.DatabasePath()
	if err != nil {
		return err
	}
	warnEmptyDatabase(path, o.DataDir, log)
	if c.engine, err = startEngine(ctx, path, rules(o), c.clock.Now, log, metrics); err != nil {
		return err
	}
	if c.tokens, err = auth.OpenTokens(ctx, c.engine, c.clock.Now, log, metrics); err != nil {
		return err
	}
	if o.Journal {
		c.journal, err = journal.Open(journal.Options{
			Dir: o.DataDir, Retention: o.RetainFiles, MinFree: int64(o.MinFreeSpace), Log: log, Metrics: metrics,
		})
		if err != nil {
			return err
		}
	}
	c.sessions, err = session.Start(ctx, session.Options{
		Engine: c.engine, Journal: c.journal, Registrar: c.registrar, Clock: c.clock.Now, Log: log,
		TokenInVMStarted: o.TokenInVMStarted, ReportRate: reportRate(o), Metrics: metrics, Pools: pools, Traces: c.commandTraces(),
	})
	if err != nil {
		return err
	}
	c.maintenance = maintenance.Start(maintenance.Options{ //nolint:contextcheck // its services outlive ctx
		Engine: c.engine, Sessions: c.sessions, Journal: c.journal, Retention: retention(o), Checks: c.ready,
		Clock: c.clock.Now, Follow: c.clock, Log: log, Metrics: metrics, Pools: pools,
	})
	c.summary = summary{Database: "sqlite " + absolute(path), Runners: c.registrar.Describe(), Traces: c.traces.Describe(), Warnings: o.Warnings(f.endpoints)}
	if o.RegistrationTokenFile != "" {
		c.tokenFile = registration.NewFileWatch(o.RegistrationTokenFile, now, log, metrics)
		c.tokenFile.Changed = c.sessions.RunnersConfigured
	}
	return nil
}

// startEngine starts the engine on the database at path.
func startEngine(
	ctx context.Context, path string, rules fleet.Rules, clock func() time.Time, log *slog.Logger, metrics prometheus.Registerer,
) (*engine.Engine, error) {
	db, err := sqlite.Open(ctx, path, log, metrics)
	if errors.Is(err, sqlite.ErrInUse) {
		return nil, inUse("the database "+absolute(path), "--database-url")
	}
	if err != nil {
		return nil, err
	}
	e, err := engine.Start(ctx, engine.Options{
		Driver: db, Rules: rules, Clock: clock, Log: log, Metrics: metrics,
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return e, nil
}

// retention returns the retention of the options.
func retention(o config.Options) engine.Retention {
	return engine.Retention{
		Events: o.RetainEvents, Heartbeats: o.RetainHeartbeats, Commands: o.RetainCommands,
		VMs: o.RetainVMs, Changes: o.RetainChanges, Audit: o.RetainAudit,
	}
}

// reportRate returns the report rate in the form of package session.
func reportRate(o config.Options) int {
	if o.ReportRate == 0 {
		return -1
	}
	return int(o.ReportRate)
}

func rules(o config.Options) fleet.Rules {
	return fleet.Rules{
		Defaults: commandDefaults(o), RegistrationTimeout: o.RegistrationTimeout, NewID: fleet.NewRegistrationID,
	}
}

func commandDefaults(o config.Options) fleet.CommandDefaults {
	return fleet.CommandDefaults{TTL: o.CommandTTL, AckTimeout: o.AckTimeout, MaxDeliveries: o.MaxDeliveries}
}

// now returns the time in UTC, without the monotonic part.
func now() time.Time { return time.Now().UTC().Round(0) }

// Handler serves both addresses.
func (c *controller) Handler() http.Handler { return c.handler }

// Ready returns the checks of readiness.
func (c *controller) Ready() *readiness.Checks { return c.ready }

// Summary describes the controller.
func (c *controller) Summary() summary {
	s := c.summary
	s.Operators = describeOperators(c.operators)
	return s
}

// describeOperators returns what credentials operators need.
func describeOperators(a *auth.Authenticator) string {
	switch {
	case a.Required():
		return "need credentials"
	case a.Insecure:
		return "need no credentials, by --insecure-operators"
	default:
		return "need no credentials on this machine, until the first token is created"
	}
}

func (c *controller) sessionCount() int { return c.sessions.Stats().Sessions }

// Run watches the token file, repeats the checks of readiness and maintains the tokens of
// operators. The other parts do their own background work.
func (c *controller) Run(ctx context.Context) error {
	var upkeep sync.WaitGroup
	upkeep.Go(func() { c.maintenance.RepeatChecks(ctx) })
	upkeep.Go(func() { c.tokens.Run(ctx) })
	defer upkeep.Wait()
	if c.tokenFile != nil {
		c.tokenFile.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// EndSessions ends agents' sessions and operators' watches.
func (c *controller) EndSessions(ctx context.Context) {
	c.control.Close()
	c.maintenance.Quiesce()
	c.sessions.EndSessions(ctx)
}

// Close writes pending data, in the order of the data flow.
func (c *controller) Close() error {
	var errs []error
	if c.control != nil {
		c.control.Close()
	}
	if c.maintenance != nil {
		c.maintenance.Quiesce()
	}
	if c.sessions != nil {
		c.sessions.Close()
	}
	flushed := c.flushTraces() // no more begin
	if c.maintenance != nil {
		c.maintenance.Stop()
	}
	c.ready.Close()
	if c.journal != nil {
		errs = append(errs, c.journal.Close())
	}
	if c.rejections != nil {
		c.rejections.Close()
	}
	if c.engine != nil {
		errs = append(errs, c.engine.Close())
	}
	<-flushed
	c.level.stop()
	return errors.Join(errs...)
}

// flushTraces exports the last spans, and closes the channel when they are exported or lost. A
// failure is not one of the controller.
func (c *controller) flushTraces() <-chan struct{} {
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		ctx, cancel := context.WithTimeout(context.Background(), flushTraces)
		defer cancel()
		if err := c.traces.Shutdown(ctx); err != nil {
			c.log.Warn("traces incomplete", logkey.Error, err)
		}
	}()
	return flushed
}

// simulate runs o.Simulate simulated agents until ctx ends.
func simulate(ctx context.Context, o config.Options, grpcAddr string, tlsConfig *tls.Config) error {
	cfg := sim.DefaultConfig()
	cfg.Controller = grpcAddr
	if tlsConfig != nil {
		cfg.Controller, cfg.TLS = "https://"+grpcAddr, tlsConfig
	}
	f, err := sim.NewFleet(sim.Demo(cfg, o.Simulate))
	if err != nil {
		return err
	}
	f.Run(ctx)
	return nil
}
