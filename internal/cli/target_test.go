package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

const secret = "tok-3f9c"

// guard is a proxy in front of a controller: it terminates TLS, and admits callers with
// the token.
func guard(t *testing.T, configure func(*tls.Config)) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(newFakeFleet()))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if configure != nil {
		configure(server.TLS)
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // Handshakes fail here on purpose.
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// put writes a file that only its owner can read.
func put(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func certificateFile(t *testing.T, der []byte) string {
	t.Helper()
	return put(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// identity makes a certificate that signs itself, and its key, as files.
func identity(t *testing.T) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return cert, certificateFile(t, der), put(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}

// contextDesk is a desk whose environment names no controller.
func contextDesk(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	delete(d.program.environ, addressEnv)
	return d
}

// must runs a command line that succeeds, and returns what it says.
func (d *desk) must(args ...string) string {
	d.t.Helper()
	stdout, stderr, code := d.run(args...)
	require.Zero(d.t, code, "%q: %s", args, stderr)
	return stdout + stderr
}

// refuses runs a command line that fails with this status and says this, and
// shows no token.
func (d *desk) refuses(code int, says string, args ...string) {
	d.t.Helper()
	stdout, stderr, got := d.run(args...)
	require.Equal(d.t, code, got, "%q: %s", args, stderr)
	require.Contains(d.t, stderr, says)
	require.NotContains(d.t, stdout+stderr, secret)
}

// With the settings of its context, migctl connects over TLS and sends the token, also for
// a watch; without them, it reports what is missing.
func TestContextTLS(t *testing.T) {
	t.Parallel()
	server := guard(t, nil)
	d := contextDesk(t)
	d.refuses(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--address", server.URL)
	d.must("config", "set-context", "lab", "--address", server.URL, "--ca-file", certificateFile(t, server.Certificate().Raw))
	d.refuses(exitNotAllowed, "denied access", "vms")

	token := put(t, "token", secret+"\n")
	require.Contains(t, d.must("vms", "--token-file", token), "vm-1")
	d.program.environ[tokenEnv] = secret
	require.Contains(t, d.must("vms"), "vm-1")
	d.refuses(exitNotAllowed, "denied access", "vms", "--context", "lab")
	d.program.environ[tokenEnv] = "wrong"
	d.refuses(exitNotAllowed, "denied access", "vms")
	delete(d.program.environ, tokenEnv)

	d.must("config", "set-context", "lab", "--token-file", token)
	require.Contains(t, d.must("vms"), "vm-1", "what was set before is still there")
	d.refuses(exitFailed, "EOF", "watch") // The stream is reached; the fake has none to send.
	d.must("config", "set-context", "lab", "--token-file=")
	d.refuses(exitNotAllowed, "denied access", "vms")

	d.must("config", "set-context", "lab", "--ca-file=", "--insecure-skip-verify", "--token-file", token)
	require.Contains(t, d.must("vms"), "migctl: warning: insecure_skip_verify is on")
	d.must("config", "set-context", "lab", "--insecure-skip-verify=false")
	d.refuses(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms")

	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	ca := certificateFile(t, server.Certificate().Raw)
	d.must("config", "set-context", "name", "--address", "https://localhost:"+port, "--ca-file", ca, "--token-file", token)
	d.refuses(exitUnavailable, "--server-name", "vms", "--context", "name")
	d.must("config", "set-context", "name", "--server-name", "example.com")
	require.Contains(t, d.must("vms", "--context", "name"), "vm-1")
}

// The certificates to trust are those of --ca-file, then of a context that is
// named, then of the environment, then of the current context.
func TestCAFile(t *testing.T) {
	t.Parallel()
	server := guard(t, nil)
	d := contextDesk(t)
	d.program.environ[tokenEnv] = secret
	good := certificateFile(t, server.Certificate().Raw)
	_, bad, _ := identity(t)
	require.Contains(t, d.must("vms", "--address", server.URL, "--ca-file", good), "vm-1")
	d.program.environ[caFileEnv] = good
	require.Contains(t, d.must("vms", "--address", server.URL), "vm-1")
	d.refuses(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--address", server.URL, "--ca-file", bad)

	d.must("config", "set-context", "lab", "--address", server.URL, "--ca-file", bad, "--token-file", put(t, "token", secret))
	require.Contains(t, d.must("vms"), "vm-1")
	d.refuses(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--context", "lab")
	require.Contains(t, d.must("vms", "--context", "lab", "--ca-file", good), "vm-1")
	delete(d.program.environ, caFileEnv)
	d.refuses(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms")

	plain := newDesk(t).server.URL
	d.refuses(exitUsage, "--ca-file must name a file", "vms", "--ca-file=")
	d.refuses(exitUsage, "--ca-file must be a readable file", "vms", "--address", server.URL, "--ca-file=/nowhere/at/all")
	d.refuses(exitUsage, "--ca-file must not be given without an https address", "vms", "--address", plain, "--ca-file", good)
	d.program.environ[caFileEnv] = put(t, "no.pem", "no certificate")
	d.refuses(exitUsage, "MIGCTL_CA_FILE must contain a PEM certificate", "vms", "--address", server.URL)
	require.Contains(t, d.must("vms", "--address", plain), "vm-1", "the environment is for https")
}

// A controller that wants a certificate of the operator's gets the context's.
func TestContextClientCertificate(t *testing.T) {
	t.Parallel()
	cert, certFile, keyFile := identity(t)
	server := guard(t, func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12 // reports the reason for a refusal within the handshake
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(cert)
	})
	d := contextDesk(t)
	d.program.environ[tokenEnv] = secret
	d.must("config", "set-context", "lab", "--address", server.URL, "--ca-file", certificateFile(t, server.Certificate().Raw))
	d.refuses(exitUnavailable, "The server may require a client certificate", "vms")
	d.must("config", "set-context", "lab", "--cert-file", certFile, "--key-file", keyFile)
	require.Contains(t, d.must("vms"), "vm-1")
}

// TLS to a server without it, and plaintext to a server with TLS, are reported as such and
// not as an unreachable controller.
func TestWrongScheme(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.refuses(exitUnavailable, "The server does not use TLS", "vms", "--address", strings.Replace(d.server.URL, "http:", "https:", 1))
	server := guard(t, nil)
	d.refuses(exitUnavailable, "The server may require TLS: try --address "+server.URL, "vms", "--address", strings.Replace(server.URL, "https:", "http:", 1))
}

// A token goes in plaintext to this machine only, unless it is asked for; and it
// follows no redirect.
func TestPlaintextToken(t *testing.T) {
	t.Parallel()
	d := contextDesk(t)
	got := ""
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		asked++
		http.Redirect(w, r, "http://elsewhere.example"+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	d.program.environ[tokenEnv] = secret
	d.refuses(exitUnavailable, "307", "vms", "--address", server.URL)
	require.Equal(t, "Bearer "+secret, got)
	require.Equal(t, 1, asked)

	d.refuses(exitUsage, "refusing to send the token to http://controller.example:8080", "vms", "--address", "controller.example:8080")
	token := put(t, "token", secret)
	d.refuses(exitUsage, "refusing to send the token", "config", "set-context", "far", "--address", "controller.example", "--token-file", token)
	d.must("config", "set-context", "far", "--address", "controller.example", "--token-file", token, "--plaintext-token")
	d.refuses(exitUsage, "refusing to send the token", "vms", "--context", "far", "--plaintext-token=false")
	d.refuses(exitUsage, "refusing to send the token", "config", "set-context", "far", "--plaintext-token=false")
}

// The tokens of the config file are never shown.
func TestConfigSecrets(t *testing.T) {
	t.Parallel()
	d := contextDesk(t)
	d.program.stdin = strings.NewReader(secret + "\n")
	d.must("config", "set-context", "lab", "--address", "https://controller.example", "--token-stdin")
	content, err := os.ReadFile(d.program.environ[configEnv])
	require.NoError(t, err)
	require.Contains(t, string(content), secret)
	d.golden("config-view", "config", "view")
	d.golden("config-view-json", "config", "view", "-o", "json")
	d.golden("config-delete", "config", "delete-context", "lab")
	d.golden("config-delete-none", "config", "delete-context", "lab")
}

// A field that breaks its rule is named with its context, when it is set and when
// it is used; and a path in the file begins where the file is.
func TestContextRules(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := identity(t)
	_, _, otherKey := identity(t)
	noPEM := put(t, "no.pem", "no certificate")
	for _, test := range []struct{ fields, says string }{
		{"ca_file: " + certFile, ""},
		{"cert_file: " + certFile + ", key_file: " + keyFile, ""},
		{"address: 'ftp://x'", "context lab: address must be a URL such as"},
		{"address: 'http://x', ca_file: " + certFile, "context lab: ca_file must not be given without an https address"},
		{"address: 'http://x', server_name: x", "context lab: server_name must not be given without an https address"},
		{"address: 'http://x', insecure_skip_verify: true", "context lab: insecure_skip_verify must not be given without"},
		{"ca_file: missing.pem", "context lab: ca_file must be a readable file"},
		{"ca_file: " + noPEM, "context lab: ca_file must contain a PEM certificate"},
		{"cert_file: " + certFile, "context lab: key_file must be given with cert_file"},
		{"key_file: " + keyFile, "context lab: cert_file must be given with key_file"},
		{"cert_file: " + certFile + ", key_file: " + otherKey, "context lab: cert_file and key_file must be a PEM certificate and its key"},
		{"token: a, token_file: b", "context lab: token must not be given with token_file"},
		{"token: 'two words'", "context lab: token must contain one token"},
		{"token: tök", "context lab: token must contain one token"},
		{"token_file: missing", "context lab: token_file must be a readable file"},
		{"token_file: " + put(t, "empty", "\n"), "context lab: token_file must contain one token"},
		{"token_file: " + put(t, "long", strings.Repeat("a", tokenLimit+1)), "context lab: token_file must contain one token"},
		{"tokken: x", "tokken"},
	} {
		d := contextDesk(t)
		if !strings.Contains(test.fields, "address:") {
			test.fields = "address: 'https://localhost:1', " + test.fields
		}
		path := d.program.environ[configEnv]
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("current_context: lab\ncontexts: {lab: {"+test.fields+"}}\n"), 0o600))
		if test.says == "" {
			d.refuses(exitUnavailable, "cannot reach", "vms")
			continue
		}
		d.refuses(exitUsage, test.says, "vms")
	}
	d := contextDesk(t)
	d.refuses(exitUsage, "--token-file must name a file", "vms", "--token-file=")
	d.refuses(exitUsage, "--token-file must be a readable file", "vms", "--token-file=/nowhere/at/all")
	d.refuses(exitUsage, "ca_file must not be given without an https", "config", "set-context", "x", "--address", "a:1", "--ca-file", certFile)
	d.refuses(exitUsage, "the name of a context must be printable", "config", "set-context", "", "--address", "a:1")
	d.program.environ[tokenEnv] = "a b"
	d.refuses(exitUsage, "MIGCTL_TOKEN must contain one token", "vms")
	require.NoError(t, os.MkdirAll(filepath.Dir(d.program.environ[configEnv]), 0o700))
	near := filepath.Join(filepath.Dir(d.program.environ[configEnv]), "near")
	require.NoError(t, os.WriteFile(near, []byte(secret), 0o600))
	require.NoError(t, os.WriteFile(d.program.environ[configEnv], []byte("contexts: {lab: {address: '"+d.server.URL+"', token_file: near}}\n"), 0o600))
	require.Contains(t, d.must("vms", "--context", "lab"), "vm-1")
}
