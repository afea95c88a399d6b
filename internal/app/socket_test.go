package app

import (
	"bufio"
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/config"
)

// listenSocket serves the control socket of a data directory with next until the end of the test.
func listenSocket(tb testing.TB, next http.Handler) (path string, s *controlSocket) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "mig") //nolint:usetesting // the path of a socket must be short
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	path = config.ControlSocket(dir)
	require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o750))
	s, err = listenControl(tb.Context(), dir, next, quiet())
	require.NoError(tb, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(quiet())
	}()
	tb.Cleanup(func() {
		s.close()
		<-served
	})
	return path, s
}

// dial connects to a socket. The connection ends with the test, or after ten seconds.
func dial(tb testing.TB, path string) net.Conn {
	tb.Helper()
	var d net.Dialer
	conn, err := d.DialContext(tb.Context(), "unix", path)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	require.NoError(tb, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn
}

// Only the controller's user can connect to the control socket, from the moment that it exists.
// It replaces what a killed controller has left, leaves nothing else behind, and is removed at
// the end.
func TestControlSocketIsPrivate(t *testing.T) {
	t.Parallel()
	path, s := listenSocket(t, http.NotFoundHandler())
	for range 2 {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.ModeSocket|0o600, info.Mode())
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1)
		l, err := listenPrivately(t.Context(), path) // as after a kill
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
	}
	s.close()
	_, err := os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = listenPrivately(t.Context(), filepath.Join(path, "none", "s"))
	require.Error(t, err)
}

// Requests on the control socket are those of its principal, whatever their headers say.
func TestControlSocketMarksItsRequests(t *testing.T) {
	t.Parallel()
	tokens, err := auth.OpenTokens(t.Context(), noTokens{}, time.Now, quiet(), nil)
	require.NoError(t, err)
	gate := auth.New(auth.Options{Tokens: tokens, Exposed: true})
	path, _ := listenSocket(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, err := gate.Admit(r, auth.Requirement{Role: auth.Admin, AllPools: true})
		if err != nil || p.Method != auth.Socket {
			panic(http.ErrAbortHandler)
		}
	}))
	for _, headers := range []string{"", "Authorization: Bearer x\r\n", "X-Forwarded-For: 192.0.2.1\r\nVia: x\r\n"} {
		conn := dial(t, path)
		_, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + "\r\n"))
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, headers)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

// noTokens is a store without tokens.
type noTokens struct{}

func (noTokens) Tokens(context.Context) ([]auth.Token, error) { return nil, nil }
func (noTokens) HadTokens(context.Context) (bool, error)      { return false, nil }
func (noTokens) SaveToken(context.Context, auth.Token) error  { return nil }
func (noTokens) RemoveTokens(context.Context, []string) error { return nil }

// Whatever is sent to the control socket, it goes on serving.
func FuzzControlSocket(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	f.Add([]byte("GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nffffffffffffffff\r\n"))
	f.Add([]byte("\x00"))
	path, _ := listenSocket(f, http.NotFoundHandler())
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := dial(t, path)
		_, _ = conn.Write(sent) // the server may have closed it already
		require.NoError(t, conn.Close())
		conn = dial(t, path)
		_, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	})
}
