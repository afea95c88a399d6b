package httpserver

import (
	"context"
	"log/slog"
	"strings"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// The log keys of this package.
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

// serverLog receives the log of net/http. Most of it is about errors of peers, which are
// logged at debug level; a panic of a handler and a failure to accept are the controller's,
// and are logged at a limited rate.
type serverLog struct {
	slog.Handler
	limiter *loglimit.Limiter
}

// Enabled returns true: Handle determines the level.
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle logs one message of net/http.
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
