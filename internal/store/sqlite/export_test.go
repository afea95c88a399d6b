package sqlite

import (
	"context"
	"log/slog"
)

// Join is Open for a database that another DB owns. It must be closed before the other.
func Join(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	sys := operatingSystem
	sys.claim = func(system, string, *slog.Logger) (func() error, error) { return func() error { return nil }, nil }
	return open(ctx, path, sys, log)
}
