package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrLaterSchema occurs when the schema of a database is newer than the program, which
// might damage it.
var ErrLaterSchema = errors.New("a later version of the program has migrated the database")

// migrate creates the schema of a database or brings it up to date. It returns
// ErrLaterSchema when the database is newer than the latest migration.
func migrate(ctx context.Context, pool *sql.DB, log *slog.Logger) error {
	p, err := migrator(pool, log)
	if err != nil {
		return err
	}
	version, newest, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if version > newest {
		return fmt.Errorf("%w: its schema is version %d, and this program knows only versions up to %d", ErrLaterSchema, version, newest)
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
