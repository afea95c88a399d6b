package app

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

// A text line has time, level, message and all attributes.
func TestTextLog(t *testing.T) {
	t.Parallel()
	same := func(h slog.Handler) slog.Handler { return h }
	grouped := func(h slog.Handler) slog.Handler {
		return h.WithAttrs([]slog.Attr{slog.String(databaseKey, "x")}).WithGroup("g")
	}
	for _, test := range []struct {
		want    string
		with    func(slog.Handler) slog.Handler
		level   slog.Level
		message string
		args    []any
	}{
		{"INFO  hello\n", same, slog.LevelInfo, "hello", nil},
		{"WARN  hello  vm_id=vm-1 why=\"no reason\"\n", same, slog.LevelWarn, "hello", []any{"vm_id", "vm-1", "why", "no reason"}},
		{"ERROR hello  database=x g.b=2\n", grouped, slog.LevelError, "hello", []any{"b", 2}},
		{"INFO  hello  level=debug time=noon msg=hi\n", same, slog.LevelInfo, "hello", []any{"level", "debug", "time", "noon", "msg", "hi"}},
		{"INFO  a b  c=\"d\\ne\"\n", same, slog.LevelInfo, "a\nb", []any{"c", "d\ne"}},
		{"INFO  hello  token=(hidden)\n", same, slog.LevelInfo, "hello", []any{"token", config.Secret("hush")}},
		{"", same, slog.LevelDebug, "hello", nil},
	} {
		var out output
		h := test.with(newLogger(config.Options{LogLevel: "info", LogFormat: "text"}, &out).Handler())
		if r := slog.NewRecord(time.Now(), test.level, test.message, 0); h.Enabled(t.Context(), test.level) {
			r.Add(test.args...)
			require.NoError(t, h.Handle(t.Context(), r))
		}
		line := out.String()
		if test.want == "" {
			require.Empty(t, line)
			continue
		}
		const stamp = "2006-01-02T15:04:05.000Z "
		require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z `, line)
		require.Equal(t, test.want, line[len(stamp):])
	}
}

// The JSON log is JSON with UTC times, from the configured level.
func TestJSONLog(t *testing.T) {
	t.Parallel()
	var out output
	l := newLogger(config.Options{LogLevel: "error", LogFormat: "json"}, &out)
	l.Warn("not this")
	l.Error("this", databaseKey, config.Options{RegistrationToken: "hush"})
	var record map[string]any
	require.NoError(t, json.Unmarshal([]byte(out.String()), &record))
	require.Equal(t, "ERROR", record["level"])
	require.Equal(t, "this", record["msg"])
	require.Regexp(t, "Z$", record["time"])
	require.NotContains(t, out.String(), "hush")
}
