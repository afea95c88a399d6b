package app

import (
	"context"
	"log/slog"
	"net"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/httpserver"
)

// bound has the listeners of all addresses. Those of the API are the same if their addresses
// are equal; metrics is nil without --metrics-addr.
type bound struct{ http, grpc, metrics net.Listener }

// api returns each listener of the API once.
func (b bound) api() []net.Listener {
	if b.http == b.grpc {
		return []net.Listener{b.http}
	}
	return []net.Listener{b.http, b.grpc}
}

func (b bound) close() {
	for _, l := range []net.Listener{b.http, b.grpc, b.metrics} {
		if l != nil {
			_ = l.Close() // The server may have closed it already.
		}
	}
}

// addressOf returns an endpoint in the form of package httpserver.
func addressOf(e config.Endpoint) httpserver.Address {
	return httpserver.Address{Option: e.Option, Host: e.Host, Port: e.Port, Replaceable: e.Replaceable}
}

// bind listens on all addresses, with one listener for the API if its addresses are equal.
// Port 0 is never equal: each address gets its own free port.
func bind(ctx context.Context, e config.Endpoints, log *slog.Logger) (b bound, err error) {
	defer func() {
		if err != nil {
			b.close() // Nothing has been accepted yet.
		}
	}()
	http, grpc := addressOf(e.HTTP), addressOf(e.GRPC)
	if b.http, err = httpserver.Listen(ctx, http, log); err != nil {
		return b, err
	}
	if http.String() == grpc.String() && http.Port != "0" {
		b.grpc = b.http
	} else if b.grpc, err = httpserver.Listen(ctx, grpc, log); err != nil {
		return b, err
	}
	if e.Metrics != nil {
		b.metrics, err = httpserver.Listen(ctx, addressOf(*e.Metrics), log)
	}
	return b, err
}
