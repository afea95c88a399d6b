package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate creates the schema of a database or brings it up to date.
func migrate(ctx context.Context, pool *sql.DB, log *slog.Logger) error {
	p, err := migrator(pool, log)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

func migrator(pool *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	heartbeats := goose.NewGoMigration(5, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		return convertHeartbeats(ctx, tx, log)
	}}, nil)
	return goose.NewProvider(goose.DialectSQLite3, pool, dir,
		goose.WithGoMigrations(heartbeats), goose.WithDisableGlobalRegistry(true))
}
