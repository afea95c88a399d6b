package app

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/httpserver"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// service is the controller without its process. The order of calls is: Handler, Ready and
// Summary at any time, Run once, EndSessions once during Run, and Close last, when Run has
// returned and no request is in the handler. A service that is never Run is closed too.
type service interface {
	// Handler serves both addresses.
	Handler() http.Handler
	// Ready returns the checks of readiness, to which the process adds its own.
	Ready() *readiness.Checks
	// Summary describes the service to the operator.
	Summary() summary
	// Run does background work until ctx ends, and then returns nil after all its goroutines
	// have ended. Any error ends the controller.
	Run(ctx context.Context) error
	// EndSessions ends agents' sessions and operators' watches, and refuses new ones. It
	// returns when they have ended, or ctx has.
	EndSessions(ctx context.Context)
	// Close writes pending data and closes the store.
	Close() error
}

// front is what the service has to know about the servers in front of it.
type front struct {
	endpoints config.Endpoints
	clientCAs *httpserver.ClientCAs // nil without --operator-client-ca
}

// summary is shown to the operator at the start. It contains no secret.
type summary struct {
	// Database names the store.
	Database string
	// Runners names the source of runner configuration.
	Runners string
	// Traces names where traces are exported to; empty if they are off.
	Traces string
	// Warnings are logged, each on its own line.
	Warnings []string
	// Operators describes what credentials operators need.
	Operators string
}

// wiring has the parts of an App that tests replace.
type wiring struct {
	// newService opens the store and registers its metrics. Close ends everything that it
	// starts.
	newService func(ctx context.Context, o config.Options, f front, log *slog.Logger, metrics *prometheus.Registry) (service, error)
	// droppedLines returns how many lines for stdout and stderr were dropped.
	droppedLines func() float64
	// simulate runs o.Simulate agents against the gRPC address until ctx ends,
	// with TLS unless tlsConfig is nil.
	simulate func(ctx context.Context, o config.Options, grpcAddr string, tlsConfig *tls.Config) error
	lookup   config.LookupFunc
}

func defaultWiring() wiring { return wiringWith(nil) }
