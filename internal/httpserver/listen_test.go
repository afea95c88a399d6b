package httpserver

import (
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A port that is in use is replaced by a free one if that is allowed; otherwise the error
// names the option.
func TestTakenPorts(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	defer taken.Close()
	host, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	a := Address{Option: "http-addr", Host: host, Port: port}
	_, err = Listen(t.Context(), a, quiet())
	require.ErrorContains(t, err, "choose another one with --http-addr")

	a.Replaceable = true
	var logged output
	l, err := Listen(t.Context(), a, logTo(&logged, slog.LevelInfo))
	require.NoError(t, err)
	require.NotEqual(t, taken.Addr().String(), l.Addr().String())
	require.Contains(t, logged.String(), "a free one is used")
	require.NoError(t, l.Close())
}
