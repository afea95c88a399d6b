package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

const formatJSON = "json"

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", formatJSON}
)

// The keys of this package's log records.
const (
	addressKey    = "address"
	configKey     = "config"
	dataDirKey    = "data_dir"
	databaseKey   = "database"
	detailKey     = "detail"
	errorKey      = "error"
	goVersionKey  = "go_version"
	grpcAddrKey   = "grpc_addr"
	httpAddrKey   = "http_addr"
	journalKey    = "journal"
	namesKey      = "names"
	openFilesKey  = "open_files"
	optionKey     = "option"
	runnersKey    = "runners"
	signalKey     = "signal"
	simulatedKey  = "simulated"
	sourceKey     = "source"
	tlsKey        = "tls"
	validFromKey  = "valid_from"
	validUntilKey = "valid_until"
	versionKey    = "version"
	vmsKey        = "vms_about"
)

// newLogger logs to w as the options say.
func newLogger(o Options, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	if o.LogFormat == formatJSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: utcTime}))
	}
	return slog.New(newLineHandler(w, level))
}

// lostLines is the line of the log that says how many are missing before it. It is
// written whatever the level of the log.
func (o Options) lostLines(lost int) []byte {
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

// lineHandler writes records as people read them: time, level and message bare,
// then the attributes as key=value.
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

// dropBuiltin drops what Handle has written already. It leaves attributes of
// the same names alone.
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
	// A message is constant by rule; a line break in one must not forge a line.
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

// WithGroup returns a handler that puts what follows into a group.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{attrs: h.attrs.WithGroup(name), line: h.line}
}

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
