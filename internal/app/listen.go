package app

import (
	"context"
	"log/slog"
	"net"

	"github.com/mig-controller/mig-controller/internal/httpserver"
)

// bound has the listeners of both addresses; they are the same if the addresses are equal.
type bound struct{ http, grpc net.Listener }

// all returns each listener once.
func (b bound) all() []net.Listener {
	if b.http == b.grpc {
		return []net.Listener{b.http}
	}
	return []net.Listener{b.http, b.grpc}
}

func (b bound) close() {
	for _, l := range b.all() {
		_ = l.Close() // The server may have closed it already.
	}
}

// bind listens on both addresses, with one listener if they are equal. Port 0 is never equal:
// each address gets its own free port.
func bind(ctx context.Context, http, grpc httpserver.Address, log *slog.Logger) (bound, error) {
	h, err := httpserver.Listen(ctx, http, log)
	if err != nil {
		return bound{}, err
	}
	if http.String() == grpc.String() && http.Port != "0" {
		return bound{http: h, grpc: h}, nil
	}
	g, err := httpserver.Listen(ctx, grpc, log)
	if err != nil {
		_ = h.Close() // Nothing has been accepted yet.
		return bound{}, err
	}
	return bound{http: h, grpc: g}, nil
}
