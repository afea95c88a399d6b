package app

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// trusts returns the settings of a client that knows this identity and no other.
func (i identity) trusts(protocols ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(i.leaf)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, NextProtos: protocols}
}

// client speaks the version of HTTP with this number, with TLS.
func (i identity) client(t *testing.T, major int) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(major == 1)
	p.SetHTTP2(major == 2)
	tr := &http.Transport{Protocols: p, TLSClientConfig: i.trusts()}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (i identity) requireServes(t *testing.T, addr string) {
	t.Helper()
	for major := 1; major <= 2; major++ {
		res, err := get(t, i.client(t, major), "https://"+addr)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, major, res.ProtoMajor)
	}
}

// With a certificate both addresses speak TLS and nothing else, and say so.
func TestServesTLS(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	var out, logged output
	o.LogLevel = "info"
	a, err := newApp(t.Context(), o, newLogger(o, &logged), &out, newFakeService().wiring())
	require.NoError(t, err)
	handler := a.gate.handler
	a.gate.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
			http.Error(w, "the request does not know of TLS", http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	})
	stop := startApp(t, a)
	for _, addr := range []string{a.HTTPAddr(), a.GRPCAddr()} {
		i.requireServes(t, addr)
		res, err := get(t, h1Client(t), "http://"+addr)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusBadRequest, res.StatusCode)
		require.Equal(t, "This port speaks TLS: use https.\n", string(body))
	}
	require.NoError(t, stop())
	require.Contains(t, out.String(), "http addr   https://"+a.HTTPAddr()+"\n")
	require.Contains(t, out.String(), "grpc addr   "+a.GRPCAddr()+" with TLS\n")
	require.Contains(t, out.String(), "tls         "+o.TLSCert+", valid until 2100-01-01T00:00:00Z\n")
	require.NotContains(t, logged.String(), "handshake", "what peers do wrong is no news")
}

// What is agreed on within the handshake is what the client asks for, from TLS 1.2
// on; who does not ask may speak either version of HTTP.
func TestALPN(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	a := newTestApp(t, o, newFakeService())
	stop := startApp(t, a)
	dial := func(c *tls.Config) (*tls.Conn, error) {
		raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", a.HTTPAddr())
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
			c := i.trusts(test.asked...)
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
	_, err := dial(i.trusts("spdy/3"))
	require.ErrorContains(t, err, "no application protocol")
	old := i.trusts()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err = dial(old)
	require.ErrorContains(t, err, "protocol version not supported")
	require.NoError(t, stop())
}

// All that is spoken in plaintext is spoken with TLS, and the simulated agents
// know their controller whatever its certificate is called.
func TestAllProtocolsOverTLS(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	o.Simulate = 1
	a, err := New(t.Context(), o, quiet(), io.Discard)
	require.NoError(t, err)
	stop := startApp(t, a)
	for major, options := range map[int][][]connect.ClientOption{
		1: {{connect.WithProtoJSON()}, {connect.WithGRPCWeb()}, nil},
		2: {{connect.WithProtoJSON()}, {connect.WithGRPCWeb()}, nil, {connect.WithGRPC()}},
	} {
		for _, option := range options {
			admin := migcontrollerv1connect.NewAdminServiceClient(i.client(t, major), "https://"+a.GRPCAddr(), option...)
			res, err := admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{
				VmId: "sim-vm-0001", Command: &commands.Command{Type: "set_log_level"}, Wait: durationpb.New(20 * time.Second),
			})
			require.NoError(t, err)
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, res.GetCommand().GetState())
		}
		res, err := get(t, i.client(t, major), "https://"+a.HTTPAddr()+"/ready")
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+a.HTTPAddr()+"/api/v1/vms/vm-7/heartbeat",
			strings.NewReader(`{"vm_id": "vm-7"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err = i.client(t, major).Do(req)
		require.NoError(t, err)
		var answer map[string]any
		require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode, "%v", answer)
	}
	require.NoError(t, stop())
}

// Clients in the process do not take another's certificate for the controller's.
func TestSimulatedAgentsCheckTheirController(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	own, err := o.readCertificate(quiet())
	require.NoError(t, err)
	require.NoError(t, own.clientConfig().VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{i.leaf}}))
	other := tls.ConnectionState{PeerCertificates: []*x509.Certificate{newIdentity(t, farOff).leaf}}
	require.Error(t, own.clientConfig().VerifyConnection(other))
}

// A new certificate is shown to who connects after it was written; who is
// connected stays.
func TestRenewalWhileServing(t *testing.T) {
	t.Parallel()
	o, first := tlsOptions(t)
	svc := newFakeService()
	a := newTestApp(t, o, svc)
	stop := startApp(t, a)
	res := openStream(t, first.client(t, 2), "https://"+a.GRPCAddr()+"/stream")
	defer res.Body.Close()
	second := newIdentity(t, farOff)
	second.write(t, o)
	a.cert.looking.Lock()
	a.cert.looked = time.Time{}
	a.cert.looking.Unlock()
	second.requireServes(t, a.HTTPAddr())
	require.NotContains(t, svc.history(), "stream ended")
	require.NoError(t, stop())
}

// Peers that do not get on with the handshake, or say nothing after it, do not
// keep their connections.
func TestSilentPeersAreClosedWithTLS(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	cert, err := o.readCertificate(quiet())
	require.NoError(t, err)
	serveBubble(t, http.NotFoundHandler(), cert.config(), func(t *testing.T, _ *server, l *pipeListener) {
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
func untilClosedTLS(t *testing.T, l *pipeListener, i identity, first string) time.Duration {
	t.Helper()
	raw := l.dial()
	defer raw.Close()
	config := i.trusts()
	config.ServerName = "localhost"
	c := tls.Client(raw, config)
	require.NoError(t, c.HandshakeContext(t.Context()))
	began := time.Now()
	if first != "" {
		_, err := io.WriteString(c, first)
		require.NoError(t, err)
	}
	_, _ = io.Copy(io.Discard, c) // a connection may be cut within a record
	return time.Since(began)
}

// The time that a handshake has is no limit for what comes after it.
func TestAnswerMayTakeLongerThanHandshake(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	cert, err := o.readCertificate(quiet())
	require.NoError(t, err)
	slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(time.Minute) // fake clock
	})
	serveBubble(t, slow, cert.config(), func(t *testing.T, _ *server, l *pipeListener) {
		t.Helper()
		raw := l.dial()
		defer raw.Close()
		config := i.trusts()
		config.ServerName = "localhost"
		c := tls.Client(raw, config)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
	})
}

// Who does not get on with a handshake keeps nobody else from theirs, and does
// not hold up a stop.
func TestStalledHandshakeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	cert, err := o.readCertificate(quiet())
	require.NoError(t, err)
	serveBubble(t, http.NotFoundHandler(), cert.config(), func(t *testing.T, s *server, l *pipeListener) {
		t.Helper()
		began := time.Now()
		silent, half := l.dial(), l.dial()
		_, err := io.WriteString(half, "\x16\x03\x01\x02")
		require.NoError(t, err)
		raw := l.dial()
		config := i.trusts()
		config.ServerName = "localhost"
		ready := tls.Client(raw, config) // says nothing after its handshake
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

// A plaintext peer that goes on talking, or does not take its answer, costs its
// own connection and no more than half a second.
func TestPlaintextPeersAreTold(t *testing.T) {
	t.Parallel()
	o, _ := tlsOptions(t)
	cert, err := o.readCertificate(quiet())
	require.NoError(t, err)
	var logged output
	log := newLogger(Options{LogLevel: "debug", LogFormat: "text"}, &logged)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := newServer(http.NotFoundHandler(), cert.config(), access{}, log)
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Serve(l) })
		began := time.Now()
		deaf := l.dial()
		_, err := io.WriteString(deaf, "POST ")
		require.NoError(t, err)
		synctest.Wait()
		time.Sleep(time.Second) // fake clock
		_, err = deaf.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, s.Close())
		serving.Wait()
	})
	require.Contains(t, logged.String(), "DEBUG http server")
	require.Contains(t, logged.String(), "TLS handshake error")
}

// Agents do not wait before they try again: one in plaintext is answered, but not at
// once, so that a fleet of them makes no hot loop. A stop does not wait for that.
func TestPlaintextAgentsAreHeld(t *testing.T) {
	t.Parallel()
	o, _ := tlsOptions(t)
	cert, err := o.readCertificate(quiet())
	require.NoError(t, err)
	serveBubble(t, http.NotFoundHandler(), cert.config(), func(t *testing.T, s *server, l *pipeListener) {
		t.Helper()
		began := time.Now()
		held, stopped := l.dial(), l.dial()
		_, err := io.WriteString(held, preface)
		require.NoError(t, err)
		answer, err := io.ReadAll(held)
		require.NoError(t, err)
		require.Equal(t, holdPlaintext, time.Since(began))
		// HTTP/2 clients know these nine bytes when they expect a frame.
		require.Regexp(t, `^HTTP/1\.1 400 `, string(answer))
		require.Contains(t, string(answer), "This port speaks TLS: use https.\n")
		_, err = io.WriteString(stopped, preface)
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, s.Shutdown(t.Context()))
		require.Equal(t, holdPlaintext, time.Since(began))
	})
}

// Plaintext is answered although the server has not read all of it: what is closed
// with something unread would be reset.
func TestPlaintextIsAnswered(t *testing.T) {
	t.Parallel()
	o, _ := tlsOptions(t)
	a := newTestApp(t, o, newFakeService())
	stop := startApp(t, a)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", a.HTTPAddr())
	require.NoError(t, err)
	_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 32768\r\n\r\n"+strings.Repeat("x", 32<<10))
	require.NoError(t, err)
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(answer), "This port speaks TLS: use https.\n")
	require.NoError(t, c.Close())
	require.NoError(t, stop())
}
