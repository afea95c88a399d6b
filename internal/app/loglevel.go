package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/requestid"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// logHandler leaves out lines below a level, and adds to the others the ids of the request and
// the span that their context belongs to. Its next handler accepts all levels.
type logHandler struct {
	next  slog.Handler
	level *logLevel
}

// controlled returns log with the ids of requests and a level that can be changed: log itself
// if it comes from newLogger, and otherwise with the level of the options.
func controlled(o config.Options, log *slog.Logger) (*slog.Logger, *logLevel) {
	if h, ok := log.Handler().(*logHandler); ok {
		return log, h.level
	}
	level := newLogLevel(o, log.Handler())
	return slog.New(&logHandler{log.Handler(), level}), level
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level.now.Level() && h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.next.Handle(ctx, withIDs(ctx, r))
}

func withIDs(ctx context.Context, r slog.Record) slog.Record {
	id, span := requestid.Of(ctx), trace.SpanContextFromContext(ctx)
	if id == "" && !span.IsValid() {
		return r
	}
	r = r.Clone()
	if id != "" {
		r.AddAttrs(slog.String(logkey.Request, id))
	}
	if span.IsValid() {
		r.AddAttrs(slog.String(logkey.Trace, span.TraceID().String()), slog.String(logkey.Span, span.SpanID().String()))
	}
	return r
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.next.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.next.WithGroup(name), h.level}
}

// logLevel is the level of a log, which can be changed. It implements rpc.LogControl.
type logLevel struct {
	now        slog.LevelVar
	configured slog.Level
	log        slog.Handler // writes at every level

	mu        sync.Mutex
	changes   int         // how often the level was changed
	revert    *time.Timer // nil if the level does not revert
	revertsAt time.Time
}

// newLogLevel returns the level of the options. Its changes are written to log.
func newLogLevel(o config.Options, log slog.Handler) *logLevel {
	l := &logLevel{log: log}
	if err := l.configured.UnmarshalText([]byte(o.LogLevel)); err != nil {
		l.configured = slog.LevelInfo
	}
	l.now.Set(l.configured)
	return l
}

// LogLevel implements rpc.LogControl.
func (l *logLevel) LogLevel() rpc.LogLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state()
}

func (l *logLevel) state() rpc.LogLevel {
	return rpc.LogLevel{Level: l.now.Level(), Configured: l.configured, RevertsAt: l.revertsAt}
}

// SetLogLevel implements rpc.LogControl.
func (l *logLevel) SetLogLevel(ctx context.Context, level slog.Level, d time.Duration) (before, after rpc.LogLevel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.state()
	l.stopTimer()
	l.now.Set(level)
	if change := l.changes; d > 0 {
		l.revertsAt = now().Add(d)
		l.revert = time.AfterFunc(d, func() { l.revertChange(change) }) //nolint:contextcheck // the request is over then
	}
	l.report(ctx, "log level changed", before.Level)
	return before, l.state()
}

// revertChange returns to the configured level, unless the level was changed since.
func (l *logLevel) revertChange(change int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes != change {
		return
	}
	before := l.now.Level()
	l.stopTimer()
	l.now.Set(l.configured)
	l.report(context.Background(), "log level returned to the configured one", before)
}

// report logs a change, at every level.
func (l *logLevel) report(ctx context.Context, message string, before slog.Level) {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	r.AddAttrs(slog.String(logLevelKey, l.now.Level().String()), slog.String(previousLevelKey, before.String()))
	if !l.revertsAt.IsZero() {
		r.AddAttrs(slog.Time(revertsAtKey, l.revertsAt))
	}
	_ = l.log.Handle(ctx, withIDs(ctx, r)) // there is nowhere else to report it
}

// stop ends the timer.
func (l *logLevel) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopTimer()
}

func (l *logLevel) stopTimer() {
	if l.revert != nil {
		l.revert.Stop()
	}
	l.revert, l.revertsAt = nil, time.Time{}
	l.changes++
}
