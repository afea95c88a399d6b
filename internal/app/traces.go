package app

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"

	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/traceexport"
)

// flushTraces is how long a stop waits for the last spans to be exported.
const flushTraces = time.Second

// startTraces starts the export of traces if the environment switches it on; otherwise it
// returns nil.
func startTraces(ctx context.Context, log *slog.Logger) (*traceexport.Provider, error) {
	settings := traceexport.Read(os.Getenv)
	for _, w := range settings.Warnings() {
		log.Warn("value in the environment ignored", logkey.Reason, w)
	}
	if !settings.On() {
		return nil, nil //nolint:nilnil // as documented
	}
	limited := new(loglimit.Limiter)
	warn := func(message string, args ...any) {
		limited.Limited(log, message, "", time.Now()).Warn(message, args...) //nolint:sloglint // the callers have constants
	}
	// The SDK has no other way to report these; by default it writes them to stderr itself.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { warn("traces incomplete", logkey.Error, err) }))
	otel.SetLogger(logr.New(sdkLog{warn}))
	return traceexport.Start(ctx, settings, traceexport.Options{
		Version: Version(), Console: os.Stdout,
		Failed: func(spans int, err error) { warn("spans not exported", logkey.Count, spans, logkey.Error, err) },
	})
}

// sdkLog is a logr.LogSink for the errors of the SDK: settings in the environment that it
// ignores. It drops their values, which may be secret, and everything else.
type sdkLog struct{ warn func(string, ...any) }

// Init implements logr.LogSink.
func (sdkLog) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (sdkLog) Enabled(int) bool { return false }

// Info implements logr.LogSink.
func (sdkLog) Info(int, string, ...any) {}

// Error implements logr.LogSink.
func (s sdkLog) Error(_ error, message string, _ ...any) {
	s.warn("OpenTelemetry reports an error", logkey.Reason, message, logkey.Hint, "check the environment variables that begin with OTEL_")
}

// WithValues implements logr.LogSink.
func (s sdkLog) WithValues(...any) logr.LogSink { return s }

// WithName implements logr.LogSink.
func (s sdkLog) WithName(string) logr.LogSink { return s }
