package app

import (
	"context"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// NewWith is New with an additional service. Both addresses serve it like the others, with
// their limits, interceptors and codecs. It is for protocol tests, in which the client chooses
// the response.
func NewWith(ctx context.Context, o config.Options, log *slog.Logger, stdout io.Writer, extra rpc.Extra) (*App, error) {
	return newApp(ctx, o, log, stdout, wiringWith(extra))
}

// wiringWith returns the wiring of a controller that also serves extra, unless extra is nil.
func wiringWith(extra rpc.Extra) wiring {
	return wiring{
		newService: func(ctx context.Context, o config.Options, f front, log *slog.Logger, metrics *prometheus.Registry) (service, error) {
			return newService(ctx, o, f, log, metrics, extra)
		},
		simulate: simulate, lookup: config.LookupHost, droppedLines: func() float64 { return 0 },
	}
}
