package httpserver

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// requireRefused requires that this many connections were refused for a reason, soon, and none
// for another.
func requireRefused(t *testing.T, s *Server, want string, n float64) {
	t.Helper()
	require.Eventually(t, func() bool { return testutil.ToFloat64(s.metrics.refused[want]) == n }, atMost, time.Millisecond, want)
	for reason, c := range s.metrics.refused {
		require.True(t, reason == want || testutil.ToFloat64(c) == 0, reason)
	}
}

// The gauge counts the open connections, whatever they speak, with both implementations.
func TestOpenConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	config, i := serverTLS(t)
	for name, makeHTTP2 := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for major := range 3 {
				metrics := prometheus.NewRegistry()
				o := plaintext(http.HandlerFunc(ok))
				o.Metrics = metrics
				var server *testkit.Identity
				if major == 0 {
					major, o.TLS, server = 2, config, &i
				}
				s := newServer(o, makeHTTP2)
				addr := serveOn(t, s)
				open := func(want float64) func() bool {
					return func() bool {
						families, err := metrics.Gather()
						require.NoError(t, err)
						return families[0].GetName() == "migcontroller_connections" && families[0].GetMetric()[0].GetGauge().GetValue() == want
					}
				}
				require.True(t, open(0)())
				client := clientOf(t, major, server)
				scheme := map[bool]string{true: "https://", false: "http://"}[server != nil]
				answer, err := get(t, client, scheme+addr)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, answer.Body)
				require.NoError(t, err)
				require.NoError(t, answer.Body.Close())
				require.True(t, open(1)())
				client.CloseIdleConnections()
				require.Eventually(t, open(0), atMost, time.Millisecond)
				require.InDelta(t, 1, testutil.ToFloat64(s.metrics.accepted), 0)
				for reason, c := range s.metrics.refused {
					require.Zero(t, testutil.ToFloat64(c), reason)
				}
			}
		})
	}
}

// A connection counts as opening until its first bytes have shown its protocol, or it has ended.
func TestOpeningConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	s := New(plaintext(http.HandlerFunc(ok)))
	addr := serveOn(t, s)
	opening := func(want float64) {
		require.Eventually(t, func() bool { return s.countOpening() == want }, atMost, time.Millisecond)
	}
	silent, other := dialFrom(t, "127.0.0.1", addr), dialFrom(t, "127.0.0.1", addr)
	opening(2)
	_, err := io.WriteString(other, "GET / HTTP/1.1\r\n")
	require.NoError(t, err)
	opening(1)
	require.NoError(t, silent.Close())
	opening(0)
	require.NoError(t, other.Close())
	answer, err := get(t, clientOf(t, 2, nil), "http://"+addr)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Zero(t, s.countOpening(), "a connection that speaks HTTP/2 is open")
}

// A connection that is not served is counted by the reason.
func TestRefusedConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	config, _ := serverTLS(t)
	for want, behave := range map[string]func(c net.Conn){
		refusedSilent:    func(net.Conn) {},
		refusedPlaintext: func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
		refusedHandshake: func(c net.Conn) { _, _ = io.WriteString(c, "no TLS at all") },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			o := plaintext(http.NotFoundHandler())
			if want != refusedSilent {
				o.TLS = config
			}
			s := New(o)
			addr := serveOn(t, s)
			for range 2 {
				c := dialFrom(t, "127.0.0.1", addr)
				behave(c)
				require.NoError(t, c.Close())
			}
			requireRefused(t, s, want, 2)
			require.InDelta(t, 2, testutil.ToFloat64(s.metrics.accepted), 0)
			require.Eventually(t, func() bool { return s.limit.open() == 0 }, atMost, time.Millisecond)
		})
	}
}

// Connections that get no further than the limit, or arrive during a stop, are counted too.
func TestConnectionsThatAreNotAdmittedAreCounted(t *testing.T) {
	t.Parallel()
	attend := func(s *Server) {
		near, far := net.Pipe()
		s.attend(near, newTurns(), func(net.Conn) { t.Error("it was served") })
		_, err := far.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	crowded := New(Options{Crowded: 1, Log: quiet()})
	for range fewConnections {
		require.True(t, crowded.admit(netip.Prefix{}))
	}
	attend(crowded)
	requireRefused(t, crowded, refusedCrowded, 1)

	stopping := New(plaintext(nil))
	require.NoError(t, stopping.Close())
	attend(stopping)
	requireRefused(t, stopping, refusedStopping, 1)
	require.Zero(t, stopping.limit.open())
}

// The metric has the expiry of the certificate that is served.
func TestCertificateExpiry(t *testing.T) {
	t.Parallel()
	files, i := newPair(t)
	metrics := prometheus.NewRegistry()
	c, err := NewCertificate(files, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		return &pair, err
	}, quiet(), metrics)
	require.NoError(t, err)
	expires := func() int64 {
		families, err := metrics.Gather()
		require.NoError(t, err)
		require.Equal(t, "migcontroller_certificate_expiry_timestamp_seconds", families[0].GetName())
		return int64(families[0].GetMetric()[0].GetGauge().GetValue())
	}
	require.Equal(t, i.Leaf.NotAfter.Unix(), expires())
	renewed := testkit.NewIdentity(t, testkit.FarOff.Add(time.Hour))
	files.write(t, renewed)
	c.lastCheck = time.Time{}
	c.check()
	require.Equal(t, renewed.Leaf.NotAfter.Unix(), expires())
	require.NotEqual(t, i.Leaf.NotAfter, renewed.Leaf.NotAfter)
}
