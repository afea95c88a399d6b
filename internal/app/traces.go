package app

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
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
		log.Warn("invalid value in the environment", logkey.Reason, w)
	}
	if !settings.On() {
		return nil, nil //nolint:nilnil // as documented
	}
	limited := new(loglimit.Limiter)
	warn := func(message string, args ...any) {
		limited.Limited(log, message, "", time.Now()).Warn(message, args...) //nolint:sloglint // the callers have constants
	}
	// The SDK has no other way to report these; by default it writes them to stderr itself. It
	// reports some once for each of its parts that reads the same variable.
	var last atomic.Pointer[string]
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		text := err.Error()
		if before := last.Swap(&text); before == nil || *before != text {
			warn(sdkError, logkey.Error, err, logkey.Hint, checkVariables)
		}
	}))
	otel.SetLogger(logr.New(sdkLog{warn}))
	return traceexport.Start(ctx, settings, traceexport.Options{
		Version: Version(), Console: os.Stdout,
		Failed: func(spans int, err error) { warn("spans not exported", logkey.Count, spans, logkey.Error, err) },
	})
}

const (
	sdkError       = "OpenTelemetry reports an error"
	checkVariables = "check the environment variables that begin with OTEL_"
	// sdkInvalid begins what the SDK reports, not as an error, about a variable that it ignores.
	// The name of the variable follows as the first key.
	sdkInvalid = "Got invalid value"
)

// sdkLog is a logr.LogSink for the errors of the SDK: settings in the environment that it
// ignores. It drops their values, which may be secret, and everything else.
type sdkLog struct{ warn func(string, ...any) }

// Init implements logr.LogSink.
func (sdkLog) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (sdkLog) Enabled(int) bool { return true }

// Info implements logr.LogSink.
func (s sdkLog) Info(_ int, message string, keysAndValues ...any) {
	if strings.HasPrefix(message, sdkInvalid) && len(keysAndValues) > 0 {
		s.warn(sdkError, logkey.Reason, message, variableKey, keysAndValues[0], logkey.Hint, checkVariables)
	}
}

// Error implements logr.LogSink.
func (s sdkLog) Error(_ error, message string, _ ...any) {
	s.warn(sdkError, logkey.Reason, message, logkey.Hint, checkVariables)
}

// WithValues implements logr.LogSink.
func (s sdkLog) WithValues(...any) logr.LogSink { return s }

// WithName implements logr.LogSink.
func (s sdkLog) WithName(string) logr.LogSink { return s }
