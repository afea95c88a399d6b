package httpserver

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The handshake, from TLS 1.2 on, negotiates the protocol that the client asks for; a client
// that does not ask may use either HTTP version.
func TestALPN(t *testing.T) {
	t.Parallel()
	config, i := serverTLS(t)
	addr := serveOn(t, New(Options{Handler: http.HandlerFunc(ok), TLS: config, Log: quiet()}))
	dial := func(c *tls.Config) (*tls.Conn, error) {
		raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = raw.Close() })
		c.ServerName = "localhost"
		conn := tls.Client(raw, c)
		err = conn.HandshakeContext(t.Context())
		return conn, err
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, test := range []struct {
			asked []string
			want  string
		}{
			{[]string{"h2", "http/1.1"}, "h2"},
			{[]string{"http/1.1", "h2"}, "h2"},
			{[]string{"http/1.1"}, "http/1.1"},
			{nil, ""},
		} {
			c := i.Trusts(test.asked...)
			c.MaxVersion = version
			conn, err := dial(c)
			require.NoError(t, err)
			require.Equal(t, test.want, conn.ConnectionState().NegotiatedProtocol)
			first := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
			if test.want == "h2" {
				first = preface
			}
			_, err = io.WriteString(conn, first)
			require.NoError(t, err)
			if test.want == "h2" {
				_, err = readSettings(conn)
				require.NoError(t, err)
				continue
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusOK, res.StatusCode)
		}
	}
	_, err := dial(i.Trusts("spdy/3"))
	require.ErrorContains(t, err, "no application protocol")
	old := i.Trusts()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err = dial(old)
	require.ErrorContains(t, err, "protocol version not supported")
}

// Clients in the process accept only the controller's certificate.
func TestSimulatedAgentsCheckTheirController(t *testing.T) {
	t.Parallel()
	files, i := newPair(t)
	own, err := files.certificate(quiet())
	require.NoError(t, err)
	require.NoError(t, own.ClientConfig().VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{i.Leaf}}))
	other := tls.ConnectionState{PeerCertificates: []*x509.Certificate{testkit.NewIdentity(t, testkit.FarOff).Leaf}}
	require.Error(t, own.ClientConfig().VerifyConnection(other))
}

// A new certificate is used for new connections; open connections stay.
func TestRenewalWhileServing(t *testing.T) {
	t.Parallel()
	files, first := newPair(t)
	cert, err := files.certificate(quiet())
	require.NoError(t, err)
	ended := make(chan struct{})
	addr := serveOn(t, New(Options{TLS: cert.ServerConfig(), Log: quiet(), Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				close(ended)
			}
		},
	)}))
	body, w := io.Pipe()
	defer w.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr, body)
	require.NoError(t, err)
	stream, err := clientOf(t, 2, &first).Do(req)
	require.NoError(t, err)
	defer stream.Body.Close()
	second := testkit.NewIdentity(t, testkit.FarOff)
	files.write(t, second)
	cert.checking.Lock()
	cert.lastCheck = time.Time{}
	cert.checking.Unlock()
	for major := 1; major <= 2; major++ {
		res, err := get(t, clientOf(t, major, &second), "https://"+addr)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, major, res.ProtoMajor)
	}
	select {
	case <-ended:
		require.Fail(t, "the stream has ended")
	default:
	}
}

func ok(http.ResponseWriter, *http.Request) {}

// Connections of peers that do not finish the handshake, or send nothing after it, are closed.
func TestSilentPeersAreClosedWithTLS(t *testing.T) {
	t.Parallel()
	config, i := serverTLS(t)
	serveBubble(t, http.NotFoundHandler(), config, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		require.Equal(t, 10*time.Second, untilClosed(t, l, ""), "no handshake")
		require.Equal(t, 10*time.Second, untilClosed(t, l, "\x16\x03\x01\x02"), "half a handshake")
		require.Zero(t, untilClosed(t, l, "\x00\x00\x00\x00\x00"), "no handshake at all")
		require.Equal(t, 10*time.Second, untilClosedTLS(t, l, i, ""), "no request")
		require.Equal(t, 10*time.Second, untilClosedTLS(t, l, i, "GET / HTTP/1.1\r\nHost:"), "half a request")
		require.Equal(t, 10*time.Second, untilClosedTLS(t, l, i, preface[:20]), "half a preface")
		require.Equal(t, 15*time.Second, untilClosedTLS(t, l, i, preface), "no answer to a ping")
		idle := untilClosedTLS(t, l, i, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.InDelta(t, 120, idle.Seconds(), 1, "an idle HTTP/1.1 connection")
	})
}

// untilClosedTLS is untilClosed for a client that has done its handshake.
func untilClosedTLS(t *testing.T, l *pipeListener, i testkit.Identity, first string) time.Duration {
	t.Helper()
	raw := l.dial()
	defer raw.Close()
	trust := i.Trusts()
	trust.ServerName = "localhost"
	c := tls.Client(raw, trust)
	require.NoError(t, c.HandshakeContext(t.Context()))
	began := time.Now()
	if first != "" {
		_, err := io.WriteString(c, first)
		require.NoError(t, err)
	}
	_, _ = io.Copy(io.Discard, c) // a connection may end within a record
	return time.Since(began)
}

// The time limit of a handshake does not apply after it.
func TestAnswerMayTakeLongerThanHandshake(t *testing.T) {
	t.Parallel()
	config, i := serverTLS(t)
	slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(time.Minute) // fake clock
	})
	serveBubble(t, slow, config, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		raw := l.dial()
		defer raw.Close()
		trust := i.Trusts()
		trust.ServerName = "localhost"
		c := tls.Client(raw, trust)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
	})
}

// A peer that does not continue its handshake delays neither others nor a stop.
func TestStalledHandshakeDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	config, i := serverTLS(t)
	serveBubble(t, http.NotFoundHandler(), config, func(t *testing.T, s *Server, l *pipeListener) {
		t.Helper()
		began := time.Now()
		silent, half := l.dial(), l.dial()
		_, err := io.WriteString(half, "\x16\x03\x01\x02")
		require.NoError(t, err)
		raw := l.dial()
		trust := i.Trusts()
		trust.ServerName = "localhost"
		ready := tls.Client(raw, trust) // sends nothing after its handshake
		require.NoError(t, ready.HandshakeContext(t.Context()))
		synctest.Wait()
		require.NoError(t, s.Shutdown(t.Context()))
		for _, c := range []net.Conn{silent, half, raw} {
			_, err := io.Copy(io.Discard, c)
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(began))
	})
}

// A plaintext peer that keeps sending, or does not read the response, is closed within half a
// second.
func TestPlaintextPeersAreAnswered(t *testing.T) {
	t.Parallel()
	config, _ := serverTLS(t)
	var logged output
	log := logTo(&logged, slog.LevelDebug)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := New(Options{Handler: http.NotFoundHandler(), TLS: config, Log: log})
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Serve(l) })
		began := time.Now()
		peer := l.dial()
		_, err := io.WriteString(peer, "POST ")
		require.NoError(t, err)
		synctest.Wait()
		time.Sleep(time.Second) // fake clock
		_, err = peer.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, s.Close())
		serving.Wait()
	})
	require.Contains(t, logged.String(), `level=DEBUG msg="http server"`)
	require.Contains(t, logged.String(), "TLS handshake error")
}

// Agents reconnect without a delay: a plaintext one is answered with a delay, so that a fleet
// of them does not cause a hot loop. A stop does not wait for that.
func TestPlaintextAgentsAreHeld(t *testing.T) {
	t.Parallel()
	config, _ := serverTLS(t)
	serveBubble(t, http.NotFoundHandler(), config, func(t *testing.T, s *Server, l *pipeListener) {
		t.Helper()
		began := time.Now()
		held, stopped := l.dial(), l.dial()
		_, err := io.WriteString(held, preface)
		require.NoError(t, err)
		answer, err := io.ReadAll(held)
		require.NoError(t, err)
		require.Equal(t, holdPlaintext, time.Since(began))
		// HTTP/2 clients recognise these nine bytes when they expect a frame.
		require.Regexp(t, `^HTTP/1\.1 400 `, string(answer))
		require.Contains(t, string(answer), "This port speaks TLS: use https.\n")
		_, err = io.WriteString(stopped, preface)
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, s.Shutdown(t.Context()))
		require.Equal(t, holdPlaintext, time.Since(began))
	})
}

// A plaintext request is answered although the server has not read all of it: a connection
// that is closed with unread data would be reset.
func TestPlaintextIsAnswered(t *testing.T) {
	t.Parallel()
	config, _ := serverTLS(t)
	addr := serveOn(t, New(Options{Handler: http.NotFoundHandler(), TLS: config, Log: quiet()}))
	c := dialFrom(t, "127.0.0.1", addr)
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 32768\r\n\r\n"+strings.Repeat("x", 32<<10))
	require.NoError(t, err)
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(answer), "This port speaks TLS: use https.\n")
}
