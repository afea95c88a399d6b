package httpserver

import (
	"context"
	"log/slog"
	"strings"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// The keys of this package's log records.
const (
	addressKey    = "address"
	detailKey     = "detail"
	headerKey     = "header"
	optionKey     = "option"
	sourceKey     = "source"
	validFromKey  = "valid_from"
	validUntilKey = "valid_until"
	valueKey      = "value"
)

// serverLog takes what net/http logs. Most of it is what peers do wrong, which
// is for debugging; a panic in a handler and a listener that cannot accept are
// ours, and some of many of them are logged.
type serverLog struct {
	slog.Handler
	limiter *loglimit.Limiter
}

// Enabled lets all through: Handle finds the level.
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle logs one message of the server.
func (s serverLog) Handle(ctx context.Context, r slog.Record) error {
	level, message := slog.LevelDebug, "http server"
	switch {
	case strings.Contains(r.Message, "panic serving"):
		level, message = slog.LevelError, "a request panicked"
	case strings.Contains(r.Message, "Accept error"):
		level, message = slog.LevelWarn, "a connection could not be accepted"
	}
	if !s.Handler.Enabled(ctx, level) {
		return nil
	}
	log := slog.New(s.Handler)
	if level > slog.LevelDebug {
		log = s.limiter.Limited(log, message, "", r.Time)
	}
	record := slog.NewRecord(r.Time, level, message, r.PC)
	record.AddAttrs(slog.String(detailKey, r.Message))
	return log.Handler().Handle(ctx, record)
}
