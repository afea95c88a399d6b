package app

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"
)

// Extra makes the handler of a service, and says below which path it is served. It
// must use the options. Generated constructors do all that.
type Extra func(options ...connect.HandlerOption) (prefix string, service http.Handler)

// NewWith is New, with a service more than the controller has of its own. Both
// addresses serve it like the others: with their limits, interceptors and codecs. It
// is for tests of the protocols, whose clients choose what a service answers.
func NewWith(ctx context.Context, o Options, log *slog.Logger, stdout io.Writer, extra Extra) (*App, error) {
	w := defaultWiring()
	w.newService = func(ctx context.Context, o Options, log *slog.Logger) (service, error) {
		return newServiceWith(ctx, o, log, extra)
	}
	return newApp(ctx, o, log, stdout, w)
}
