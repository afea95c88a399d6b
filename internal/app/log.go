package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// The log keys of this package.
const (
	configKey    = "config"
	dataDirKey   = "data_dir"
	databaseKey  = "database"
	delayKey     = "drain_delay"
	goVersionKey = "go_version"
	grpcAddrKey  = "grpc_addr"
	httpAddrKey  = "http_addr"
	journalKey   = "journal"
	metricsKey   = "metrics"
	logLevelKey  = "log_level"
	namesKey     = "names"
	openFilesKey = "open_files"
	revertsAtKey = "reverts_at"
	operatorsKey = "operators"
	runnersKey   = "runners"
	signalKey    = "signal"
	simulatedKey = "simulated"
	tlsKey       = "tls"
	tracesKey    = "traces"
	variableKey  = "variable"
	versionKey   = "version"
	vmsKey       = "vms_about"

	previousLevelKey = "previous_level"
)

// everyLevel is below all levels.
const everyLevel = slog.Level(math.MinInt)

// newLogger returns a logger to w with the level and format of the options.
func newLogger(o config.Options, w io.Writer) *slog.Logger {
	var lines slog.Handler = newLineHandler(w, everyLevel)
	if o.LogFormat == config.FormatJSON {
		lines = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: everyLevel, ReplaceAttr: utcTime})
	}
	return slog.New(&logHandler{lines, newLogLevel(o, lines)})
}

// lostLines returns the log line that reports how many lines are missing before it, at every
// log level.
func lostLines(o config.Options, lost int) []byte {
	var line bytes.Buffer
	o.LogLevel = "info"
	newLogger(o, &line).Warn("log lines left out: they could not be written in time", loglimit.KeySuppressed, lost)
	return line.Bytes()
}

func utcTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

// lineHandler writes records for people: time, level and message, then the attributes as
// key=value.
type lineHandler struct {
	attrs slog.Handler // writes to line.buf
	line  *line
}

// line is the line being written, shared by all handlers of one writer.
type line struct {
	mu  sync.Mutex
	buf bytes.Buffer
	out io.Writer
}

func newLineHandler(w io.Writer, level slog.Level) *lineHandler {
	l := &line{out: w}
	attrs := slog.NewTextHandler(&l.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: dropBuiltin})
	return &lineHandler{attrs: attrs, line: l}
}

// dropBuiltin drops the attributes that Handle writes itself, but not others of the same
// names.
func dropBuiltin(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	_, isLevel := a.Value.Any().(slog.Level)
	if a.Key == slog.LevelKey && isLevel || a.Key == slog.MessageKey && a.Value.Equal(slog.StringValue("")) {
		return slog.Attr{}
	}
	return a
}

// Enabled reports whether the level is logged.
func (h *lineHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.attrs.Enabled(ctx, l) }

// Handle writes one line.
func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	b := &h.line.buf
	b.Reset()
	// Messages are constants; nevertheless a line break in one must not forge a line.
	message := strings.ReplaceAll(r.Message, "\n", " ")
	fmt.Fprintf(b, "%s %-5s %s", r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), r.Level, message)
	end := b.Len()
	b.WriteString("  ")
	bare := r.Clone()
	bare.Time, bare.Message = time.Time{}, ""
	if err := h.attrs.Handle(ctx, bare); err != nil {
		return err
	}
	if b.Len() == end+len("  \n") {
		b.Truncate(end)
		b.WriteByte('\n')
	}
	_, err := h.line.out.Write(b.Bytes())
	return err
}

// WithAttrs returns a handler that adds attrs to every line.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineHandler{attrs: h.attrs.WithAttrs(attrs), line: h.line}
}

// WithGroup returns a handler that puts later attributes into a group.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{attrs: h.attrs.WithGroup(name), line: h.line}
}
