package app

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"

	"github.com/mig-controller/mig-controller/internal/config"
)

// service is what the controller does for its fleet, as the lifecycle sees it.
// The calls come in this order: Handler and Summary at any time, Run once,
// EndSessions once while Run goes on, Close last, when Run has returned and no
// request is in the handler. A service that is never Run is closed all the same.
type service interface {
	// Handler serves both addresses.
	Handler() http.Handler
	// Summary describes the service to the operator.
	Summary() summary
	// Run keeps the service in order until ctx ends, and then returns nil, with
	// all its goroutines gone. Any error ends the controller.
	Run(ctx context.Context) error
	// EndSessions ends all that lasts longer than a request, agents' sessions
	// and operators' watches, and lets none begin. It returns when they have
	// ended, or ctx has.
	EndSessions(ctx context.Context)
	// Close writes what is under way and closes the store.
	Close() error
}

// summary is what the operator reads at the start. It holds no secret.
type summary struct {
	// Database names the store.
	Database string
	// Runners names the source of runner configuration.
	Runners string
	// Warnings are logged, each on its own.
	Warnings []string
}

// wiring is what App is put together from.
type wiring struct {
	// newService opens the store and starts nothing that Close does not end.
	newService func(ctx context.Context, o config.Options, log *slog.Logger) (service, error)
	// simulate runs o.Simulate agents against the gRPC address until ctx ends,
	// with TLS unless tlsConfig is nil.
	simulate func(ctx context.Context, o config.Options, grpcAddr string, tlsConfig *tls.Config) error
	lookup   config.LookupFunc
}

func defaultWiring() wiring { return wiringWith(nil) }
