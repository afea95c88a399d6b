package httpserver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// clientCAsOf returns the CAs, and the file that they are read from.
func clientCAsOf(t *testing.T, log *slog.Logger, all ...testkit.CA) (c *ClientCAs, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "ca.pem")
	writeCAs(t, file, all...)
	c, err := NewClientCAs(file, func() ([]*x509.Certificate, error) {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var found []*x509.Certificate
		for _, ca := range all {
			if bytes.Contains(content, ca.PEM) {
				found = append(found, ca.Cert)
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s has no CA", file)
		}
		return found, nil
	}, log)
	require.NoError(t, err)
	return c, file
}

func writeCAs(t *testing.T, file string, all ...testkit.CA) {
	t.Helper()
	var content []byte
	for _, ca := range all {
		content = append(content, ca.PEM...)
	}
	require.NoError(t, os.WriteFile(file, content, 0o600))
}

// serveNames serves the common name of the verified client certificate of each request.
func serveNames(t *testing.T, cas *ClientCAs) (addr string, server testkit.Identity) {
	t.Helper()
	config, server := serverTLS(t)
	o := plaintext(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.VerifiedChains) > 0 {
			name = r.TLS.VerifiedChains[0][0].Subject.CommonName
		}
		fmt.Fprint(w, name)
	}))
	o.TLS = cas.Accept(config)
	return serveOn(t, New(o)), server
}

// named returns a template with a common name.
func named(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}}
}

// clientWith returns a client that sends this certificate, whatever CAs the server names.
func clientWith(t *testing.T, major int, server testkit.Identity, cert *tls.Certificate) *http.Client {
	t.Helper()
	c := clientOf(t, major, &server)
	transport, ok := c.Transport.(*http.Transport)
	require.True(t, ok)
	if cert != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

// nameOf returns the response of serveNames.
func nameOf(t *testing.T, c *http.Client, addr string) (string, error) {
	t.Helper()
	response, err := get(t, c, "https://"+addr)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return string(content), err
}

// A valid certificate of a CA is passed to handlers. Clients without one are served as before,
// and the handshake of one with any other certificate fails.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ours, theirs := testkit.NewCA(t, "operators", testkit.FarOff), testkit.NewCA(t, "operators", testkit.FarOff)
	cas, _ := clientCAsOf(t, quiet(), ours)
	addr, server := serveNames(t, cas)
	early, late, forServers := named("early"), named("late"), named("server")
	early.NotBefore, late.NotAfter = testkit.FarOff.AddDate(-1, 0, 0), time.Now().Add(-time.Second)
	forServers.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, major := range []int{1, 2} {
		good := ours.Client(t, named("ann"))
		name, err := nameOf(t, clientWith(t, major, server, &good), addr)
		require.NoError(t, err)
		require.Equal(t, "ann", name)
		name, err = nameOf(t, clientWith(t, major, server, nil), addr)
		require.NoError(t, err)
		require.Equal(t, "nobody", name)
		for _, bad := range []tls.Certificate{
			theirs.Client(t, named("ann")), ours.Client(t, early), ours.Client(t, late), ours.Client(t, forServers),
		} {
			_, err := nameOf(t, clientWith(t, major, server, &bad), addr)
			require.Error(t, err, "HTTP/%d, %s", major, bad.Leaf.Subject) // of the network, as far as the client knows
		}
	}
}

// The CAs are read again without a restart. An unusable file does not replace them.
func TestClientCAsAreReplaced(t *testing.T) {
	t.Parallel()
	first, second := testkit.NewCA(t, "first", testkit.FarOff), testkit.NewCA(t, "second", testkit.FarOff)
	synctest.Test(t, func(t *testing.T) {
		var logged output
		cas, file := clientCAsOf(t, logTo(&logged, slog.LevelInfo), first, second)
		require.True(t, cas.Trusts(first.Cert) && cas.Trusts(second.Cert))
		config := cas.Accept(&tls.Config{MinVersion: tls.VersionTLS12})
		trusted := func() *x509.CertPool {
			latest, err := config.GetConfigForClient(nil)
			require.NoError(t, err)
			require.Equal(t, tls.VerifyClientCertIfGiven, latest.ClientAuth)
			require.True(t, latest.SessionTicketsDisabled)
			return latest.ClientCAs
		}
		both := trusted()
		writeCAs(t, file, second)
		require.True(t, cas.Trusts(first.Cert), "the file has just been read")
		time.Sleep(checkInterval) // fake clock
		require.False(t, cas.Trusts(first.Cert))
		require.True(t, cas.Trusts(second.Cert))
		require.False(t, trusted().Equal(both))
		require.Contains(t, logged.String(), `level=INFO msg="the CAs of client certificates were read again" count=1`)
		require.NoError(t, os.Remove(file))
		for range 3 {
			time.Sleep(checkInterval) // fake clock
			require.True(t, cas.Trusts(second.Cert))
			require.NotNil(t, trusted())
		}
		require.Equal(t, 1, strings.Count(logged.String(), "WARN"))
		require.Contains(t, logged.String(), `level=WARN msg="the new CAs of client certificates cannot be used; the old ones are kept"`)
	})
}

// Sessions are not resumed where client certificates are accepted: each connection shows its
// certificate again.
func TestNoSessionTickets(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t, "operators", testkit.FarOff)
	cas, _ := clientCAsOf(t, quiet(), ca)
	addr, server := serveNames(t, cas)
	cert := ca.Client(t, named("ann"))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := server.Trusts("http/1.1")
		config.MinVersion, config.MaxVersion = version, version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		config.Certificates = []tls.Certificate{cert}
		for range 3 {
			require.False(t, resumes(t, addr, config))
		}
	}
}

// resumes reports whether a connection resumes the session of an earlier one. It reads a
// response, because tickets arrive with it.
func resumes(t *testing.T, addr string, config *tls.Config) bool {
	t.Helper()
	dialer := tls.Dialer{NetDialer: new(net.Dialer), Config: config}
	c, err := dialer.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	response, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(response), "ann")
	encrypted, ok := c.(*tls.Conn)
	require.True(t, ok)
	return encrypted.ConnectionState().DidResume
}

// An unusable file is refused at the start.
func TestUnusableClientCAs(t *testing.T) {
	t.Parallel()
	want := errors.New("no CAs")
	_, err := NewClientCAs("missing", func() ([]*x509.Certificate, error) { return nil, want }, quiet())
	require.ErrorIs(t, err, want)
}
