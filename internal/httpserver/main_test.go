package httpserver

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output collects the log.
type output = testkit.Buffer

// logTo logs to out from a level on.
func logTo(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// plaintext are the options of a server of h.
func plaintext(h http.Handler) Options { return Options{Handler: h, Log: quiet()} }

// implementations are the HTTP/2 implementations.
var implementations = map[string]func(*http.Server, Options) http2Server{byXNet: newXNet, "net/http": newNetHTTP}

// byXNet is the name of the implementation that the controller uses.
const byXNet = "x/net"

// listen listens on a free port.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// serveOn serves on a free port until the test ends, and returns its address.
func serveOn(t *testing.T, s *Server) (addr string) {
	t.Helper()
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		serving.Wait()
	})
	return l.Addr().String()
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

// clientOf returns a client for the HTTP version with this number, with TLS if the server has
// an identity.
func clientOf(t *testing.T, major int, server *testkit.Identity) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(major == 1)
	p.SetHTTP2(major == 2 && server != nil)
	p.SetUnencryptedHTTP2(major == 2 && server == nil)
	tr := &http.Transport{Protocols: p}
	if server != nil {
		tr.TLSClientConfig = server.Trusts()
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
