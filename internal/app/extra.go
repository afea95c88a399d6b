package app

import (
	"context"
	"io"
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// NewWith is New, with a service more than the controller has of its own. Both
// addresses serve it like the others: with their limits, interceptors and codecs. It
// is for tests of the protocols, whose clients choose what a service answers.
func NewWith(ctx context.Context, o config.Options, log *slog.Logger, stdout io.Writer, extra rpc.Extra) (*App, error) {
	return newApp(ctx, o, log, stdout, wiringWith(extra))
}

// wiringWith is the wiring of a controller that serves extra as well, unless it is
// nil.
func wiringWith(extra rpc.Extra) wiring {
	return wiring{
		newService: func(ctx context.Context, o config.Options, log *slog.Logger) (service, error) {
			return newService(ctx, o, log, extra)
		},
		simulate: simulate, lookup: config.LookupHost,
	}
}
