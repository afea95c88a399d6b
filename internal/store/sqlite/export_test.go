package sqlite

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// Join is Open for a database that is already open as another DB. It must be closed before
// the other one.
func Join(ctx context.Context, path string, log *slog.Logger, _ prometheus.Registerer) (*DB, error) {
	sys := operatingSystem
	sys.claim = func(system, string, *slog.Logger) (func() error, error) { return func() error { return nil }, nil }
	return open(ctx, path, sys, log)
}
