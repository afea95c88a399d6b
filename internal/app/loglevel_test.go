package app

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/requestid"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// In both formats, a line has the ids of the request and the span of its context, and no ids
// without them.
func TestLogIDs(t *testing.T) {
	t.Parallel()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}})
	request := requestid.With(t.Context(), "req-1")
	for format, is := range map[string]string{"text": "=", config.FormatJSON: `":"`} {
		var out output
		log := newLogger(config.Options{LogLevel: "info", LogFormat: format}, &out).With(logkey.VM, "vm-1")
		line := func(ctx context.Context) string {
			before := out.String()
			log.InfoContext(ctx, "hello")
			return strings.ReplaceAll(strings.TrimPrefix(out.String(), before), is, "=")
		}
		traced := line(trace.ContextWithSpanContext(request, span))
		require.Contains(t, traced, "vm_id=vm-1")
		require.Contains(t, traced, "request_id=req-1")
		require.Contains(t, traced, "trace_id=01020000000000000000000000000000")
		require.Contains(t, traced, "span_id=0300000000000000")
		require.Contains(t, line(context.WithoutCancel(request)), "request_id=req-1")
		require.NotContains(t, line(request), "trace_id")
		require.NotContains(t, line(t.Context()), "request_id")
	}
}

// A change of the level applies at once to all loggers, and is logged at every level.
func TestSetLogLevel(t *testing.T) {
	t.Parallel()
	var out output
	log := newLogger(config.Options{LogLevel: "error", LogFormat: "text"}, &out)
	child := log.With(logkey.VM, "vm-1").WithGroup("g")
	same, level := controlled(config.Options{}, log)
	require.Same(t, log, same)
	child.Warn("not this")
	require.Empty(t, out.String())

	before, after := level.SetLogLevel(requestid.With(t.Context(), "req-1"), slog.LevelDebug, 0)
	require.Equal(t, rpc.LogLevel{Level: slog.LevelError, Configured: slog.LevelError}, before)
	require.Equal(t, rpc.LogLevel{Level: slog.LevelDebug, Configured: slog.LevelError}, after)
	require.Equal(t, after, level.LogLevel())
	child.Debug("this")
	require.Contains(t, out.String(), "DEBUG this")
	require.Contains(t, out.String(), "log level changed  log_level=DEBUG previous_level=ERROR request_id=req-1\n")

	level.SetLogLevel(t.Context(), slog.LevelError, 0)
	require.Contains(t, out.String(), "log level changed  log_level=ERROR previous_level=DEBUG\n", "although it is a line of a lower level")
	child.Warn("nor this")
	require.NotContains(t, out.String(), "nor this")
}

// A level with a duration lasts that long. A later change replaces it.
func TestLogLevelReverts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out output
		_, level := controlled(config.Options{}, newLogger(config.Options{LogLevel: "warn", LogFormat: "text"}, &out))
		now := func() slog.Level { return level.LogLevel().Level }
		wait := func(d time.Duration) {
			time.Sleep(d) // fake clock
			synctest.Wait()
		}
		began := time.Now().UTC().Round(0)
		_, after := level.SetLogLevel(t.Context(), slog.LevelDebug, 10*time.Minute)
		require.Equal(t, began.Add(10*time.Minute), after.RevertsAt)
		wait(10*time.Minute - 1)
		require.Equal(t, slog.LevelDebug, now())
		wait(1)
		require.Equal(t, rpc.LogLevel{Level: slog.LevelWarn, Configured: slog.LevelWarn}, level.LogLevel())
		require.Contains(t, out.String(), "log level returned to the configured one  log_level=WARN previous_level=DEBUG\n")

		level.SetLogLevel(t.Context(), slog.LevelDebug, time.Minute)
		level.SetLogLevel(t.Context(), slog.LevelInfo, 0)
		wait(time.Hour)
		require.Equal(t, slog.LevelInfo, now(), "the first change has no effect any more")

		level.SetLogLevel(t.Context(), slog.LevelDebug, time.Minute)
		level.stop()
		wait(time.Hour)
		require.Equal(t, slog.LevelDebug, now(), "a controller that has stopped logs nothing more")
	})
}

// A logger that an embedding program brings gets the level of the options too.
func TestControlledLogger(t *testing.T) {
	t.Parallel()
	var out output
	log, level := controlled(config.Options{LogLevel: "warn"}, slog.New(slog.NewTextHandler(&out, nil)))
	log.Info("not this")
	level.SetLogLevel(t.Context(), slog.LevelInfo, 0)
	log.InfoContext(requestid.With(t.Context(), "req-1"), "this")
	require.NotContains(t, out.String(), "not this")
	require.Contains(t, out.String(), "msg=this request_id=req-1")
}
