package sqlite

import (
	"context"
	"log/slog"
)

// OpenShared is Open for a database that others opened by OpenShared may share.
func OpenShared(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	sys := operatingSystem
	sys.shared = true
	return open(ctx, path, sys, log)
}
