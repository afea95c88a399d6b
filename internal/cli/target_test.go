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

// newAuthProxy starts a proxy in front of a controller that terminates TLS and requires the
// token.
func newAuthProxy(t *testing.T, configure func(*tls.Config)) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(newFakeFleet()))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			http.Error(w, "unauthenticated", http.StatusUnauthorized)
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

// writeFile writes a temporary file that only its owner can read, and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func certificateFile(t *testing.T, der []byte) string {
	t.Helper()
	return writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// selfSigned creates a self-signed certificate and its key, as files.
func selfSigned(t *testing.T) (cert *x509.Certificate, certFile, keyFile string) {
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
	return cert, certificateFile(t, der), writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}

// newContextDriver returns a driver without a controller address in the environment.
func newContextDriver(t *testing.T) *driver {
	t.Helper()
	d := newDriver(t)
	delete(d.program.environ, addressEnv)
	return d
}

// mustRun runs a command line that must succeed, and returns its output.
func (d *driver) mustRun(args ...string) string {
	d.t.Helper()
	stdout, stderr, code := d.run(args...)
	require.Zero(d.t, code, "%q: %s", args, stderr)
	return stdout + stderr
}

// mustFail runs a command line that must fail with this status and message, without
// printing the token.
func (d *driver) mustFail(code int, message string, args ...string) {
	d.t.Helper()
	stdout, stderr, got := d.run(args...)
	require.Equal(d.t, code, got, "%q: %s", args, stderr)
	require.Contains(d.t, stderr, message)
	require.NotContains(d.t, stdout+stderr, secret)
}

// With the settings of a context, migctl connects over TLS and sends the token, also for a
// watch. Without them, it reports which setting is missing.
func TestContextTLS(t *testing.T) {
	t.Parallel()
	server := newAuthProxy(t, nil)
	d := newContextDriver(t)
	d.mustFail(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--address", server.URL)
	d.mustRun("config", "set-context", "lab", "--address", server.URL, "--ca-file", certificateFile(t, server.Certificate().Raw))
	d.mustFail(exitNotAllowed, "denied access", "vms")

	token := writeFile(t, "token", secret+"\n")
	require.Contains(t, d.mustRun("vms", "--token-file", token), "vm-1")
	d.program.environ[tokenEnv] = secret
	require.Contains(t, d.mustRun("vms"), "vm-1")
	d.mustFail(exitNotAllowed, "denied access", "vms", "--context", "lab")
	d.program.environ[tokenEnv] = "wrong"
	d.mustFail(exitNotAllowed, "denied access", "vms")
	delete(d.program.environ, tokenEnv)

	d.mustRun("config", "set-context", "lab", "--token-file", token)
	require.Contains(t, d.mustRun("vms"), "vm-1", "earlier settings are kept")
	d.mustFail(exitFailed, "EOF", "watch") // Access is granted, but the fake has no stream.
	d.mustRun("config", "set-context", "lab", "--token-file=")
	d.mustFail(exitNotAllowed, "denied access", "vms")

	d.mustRun("config", "set-context", "lab", "--ca-file=", "--insecure-skip-verify", "--token-file", token)
	require.Contains(t, d.mustRun("vms"), "migctl: warning: insecure_skip_verify is on")
	d.mustRun("config", "set-context", "lab", "--insecure-skip-verify=false")
	d.mustFail(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms")

	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	ca := certificateFile(t, server.Certificate().Raw)
	d.mustRun("config", "set-context", "name", "--address", "https://localhost:"+port, "--ca-file", ca, "--token-file", token)
	d.mustFail(exitUnavailable, "--server-name", "vms", "--context", "name")
	d.mustRun("config", "set-context", "name", "--server-name", "example.com")
	require.Contains(t, d.mustRun("vms", "--context", "name"), "vm-1")
}

// The CA file comes from --ca-file, the context named by --context, the environment or the
// current context, in this order.
func TestCAFile(t *testing.T) {
	t.Parallel()
	server := newAuthProxy(t, nil)
	d := newContextDriver(t)
	d.program.environ[tokenEnv] = secret
	good := certificateFile(t, server.Certificate().Raw)
	_, bad, _ := selfSigned(t)
	require.Contains(t, d.mustRun("vms", "--address", server.URL, "--ca-file", good), "vm-1")
	d.program.environ[caFileEnv] = good
	require.Contains(t, d.mustRun("vms", "--address", server.URL), "vm-1")
	d.mustFail(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--address", server.URL, "--ca-file", bad)

	d.mustRun("config", "set-context", "lab", "--address", server.URL, "--ca-file", bad, "--token-file", writeFile(t, "token", secret))
	require.Contains(t, d.mustRun("vms"), "vm-1")
	d.mustFail(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms", "--context", "lab")
	require.Contains(t, d.mustRun("vms", "--context", "lab", "--ca-file", good), "vm-1")
	delete(d.program.environ, caFileEnv)
	d.mustFail(exitUnavailable, "--ca-file FILE, MIGCTL_CA_FILE or a context", "vms")

	plain := newDriver(t).server.URL
	d.mustFail(exitUsage, "--ca-file must name a file", "vms", "--ca-file=")
	d.mustFail(exitUsage, "--ca-file must be a readable file", "vms", "--address", server.URL, "--ca-file=/nowhere/at/all")
	d.mustFail(exitUsage, "--ca-file must not be given without an https address", "vms", "--address", plain, "--ca-file", good)
	d.program.environ[caFileEnv] = writeFile(t, "no.pem", "no certificate")
	d.mustFail(exitUsage, "MIGCTL_CA_FILE must contain a PEM certificate", "vms", "--address", server.URL)
	require.Contains(t, d.mustRun("vms", "--address", plain), "vm-1", "the environment variable only applies to https")
}

// migctl presents the client certificate of the context.
func TestContextClientCertificate(t *testing.T) {
	t.Parallel()
	cert, certFile, keyFile := selfSigned(t)
	server := newAuthProxy(t, func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12 // rejects the certificate within the handshake
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(cert)
	})
	d := newContextDriver(t)
	d.program.environ[tokenEnv] = secret
	d.mustRun("config", "set-context", "lab", "--address", server.URL, "--ca-file", certificateFile(t, server.Certificate().Raw))
	d.mustFail(exitUnavailable, "The server may require a client certificate", "vms")
	d.mustRun("config", "set-context", "lab", "--cert-file", certFile, "--key-file", keyFile)
	require.Contains(t, d.mustRun("vms"), "vm-1")
}

// An error from https to an http server, or http to an https server, has a hint about the
// scheme.
func TestWrongScheme(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.mustFail(exitUnavailable, "The server does not use TLS", "vms", "--address", strings.Replace(d.server.URL, "http:", "https:", 1))
	server := newAuthProxy(t, nil)
	d.mustFail(exitUnavailable, "The server may require TLS: try --address "+server.URL, "vms", "--address", strings.Replace(server.URL, "https:", "http:", 1))
}

// The token is sent in plaintext only to this machine, unless --plaintext-token is set, and
// redirects are not followed.
func TestPlaintextToken(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	got := ""
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		requests++
		http.Redirect(w, r, "http://elsewhere.example"+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	d.program.environ[tokenEnv] = secret
	d.mustFail(exitUnavailable, "307", "vms", "--address", server.URL)
	require.Equal(t, "Bearer "+secret, got)
	require.Equal(t, 1, requests)

	d.mustFail(exitUsage, "refusing to send the token to http://controller.example:8080", "vms", "--address", "controller.example:8080")
	token := writeFile(t, "token", secret)
	d.mustFail(exitUsage, "refusing to send the token", "config", "set-context", "far", "--address", "controller.example", "--token-file", token)
	d.mustRun("config", "set-context", "far", "--address", "controller.example", "--token-file", token, "--plaintext-token")
	d.mustFail(exitUsage, "refusing to send the token", "vms", "--context", "far", "--plaintext-token=false")
	d.mustFail(exitUsage, "refusing to send the token", "config", "set-context", "far", "--plaintext-token=false")
}

// The tokens of the config file are never shown.
func TestConfigSecrets(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	d.program.stdin = strings.NewReader(secret + "\n")
	d.mustRun("config", "set-context", "lab", "--address", "https://controller.example", "--token-stdin")
	content, err := os.ReadFile(d.program.environ[configEnv])
	require.NoError(t, err)
	require.Contains(t, string(content), secret)
	d.golden("config-view", "config", "view")
	d.golden("config-view-json", "config", "view", "-o", "json")
	d.golden("config-delete", "config", "delete-context", "lab")
	d.golden("config-delete-none", "config", "delete-context", "lab")
}

// Validation errors name the context and field, in config set-context and when the context
// is used. Relative paths are resolved against the directory of the config file.
func TestContextRules(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := selfSigned(t)
	_, _, otherKey := selfSigned(t)
	noPEM := writeFile(t, "no.pem", "no certificate")
	for _, test := range []struct{ fields, message string }{
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
		{"token: a, token_file: b", "context lab: token, token_file and token_command exclude each other"},
		{"token: a, token_command: b", "context lab: token, token_file and token_command exclude each other"},
		{"token: 'two words'", "context lab: token must contain one token"},
		{"token: tök", "context lab: token must contain one token"},
		{"token_file: missing", "context lab: token_file must be a readable file"},
		{"token_file: " + writeFile(t, "empty", "\n"), "context lab: token_file must contain one token"},
		{"token_file: " + writeFile(t, "long", strings.Repeat("a", tokenLimit+1)), "context lab: token_file must contain one token"},
		{"tokken: x", "tokken"},
	} {
		d := newContextDriver(t)
		if !strings.Contains(test.fields, "address:") {
			test.fields = "address: 'https://localhost:1', " + test.fields
		}
		path := d.program.environ[configEnv]
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("current_context: lab\ncontexts: {lab: {"+test.fields+"}}\n"), 0o600))
		if test.message == "" {
			d.mustFail(exitUnavailable, "cannot reach", "vms")
			continue
		}
		d.mustFail(exitUsage, test.message, "vms")
	}
	d := newContextDriver(t)
	d.mustFail(exitUsage, "--token-file must name a file", "vms", "--token-file=")
	d.mustFail(exitUsage, "--token-file must be a readable file", "vms", "--token-file=/nowhere/at/all")
	d.mustFail(exitUsage, "ca_file must not be given without an https", "config", "set-context", "x", "--address", "a:1", "--ca-file", certFile)
	d.mustFail(exitUsage, "the name of a context must be printable", "config", "set-context", "", "--address", "a:1")
	d.program.environ[tokenEnv] = "a b"
	d.mustFail(exitUsage, "MIGCTL_TOKEN must contain one token", "vms")
	require.NoError(t, os.MkdirAll(filepath.Dir(d.program.environ[configEnv]), 0o700))
	near := filepath.Join(filepath.Dir(d.program.environ[configEnv]), "near")
	require.NoError(t, os.WriteFile(near, []byte(secret), 0o600))
	require.NoError(t, os.WriteFile(d.program.environ[configEnv], []byte("contexts: {lab: {address: '"+d.server.URL+"', token_file: near}}\n"), 0o600))
	require.Contains(t, d.mustRun("vms", "--context", "lab"), "vm-1")
}
