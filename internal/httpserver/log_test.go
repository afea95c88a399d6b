package httpserver

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// net/http's log is logged at debug level, except for errors of the controller.
func TestServerLog(t *testing.T) {
	t.Parallel()
	for text, level := range map[string]string{
		"http: TLS handshake error":                      `level=DEBUG msg="http server"`,
		"http: panic serving 1.2.3.4:5: oh":              `level=ERROR msg="a request panicked"`,
		"http: Accept error: too many open files; retry": `level=WARN msg="a connection could not be accepted"`,
	} {
		var out output
		New(Options{Log: logTo(&out, slog.LevelDebug)}).http1.ErrorLog.Print(text)
		require.Contains(t, out.String(), level)
		require.Contains(t, out.String(), strings.TrimSpace(text))
	}
}

// Peers cannot fill the log.
func TestServerLogIsLimited(t *testing.T) {
	t.Parallel()
	var out output
	s := New(Options{Log: logTo(&out, slog.LevelInfo)})
	for range 3 * loglimit.Lines {
		s.http1.ErrorLog.Print("http: Accept error: too many open files; retrying")
		s.http1.ErrorLog.Print("http: panic serving 127.0.0.1:1: oh")
	}
	require.Equal(t, loglimit.Lines, strings.Count(out.String(), "a connection could not be accepted"))
	require.Equal(t, loglimit.Lines, strings.Count(out.String(), "a request panicked"))
}
