package migclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// fakeAccess answers WhoAmI with the common name of the client's certificate, or the token.
type fakeAccess struct {
	migcontrollerv1connect.UnimplementedAccessServiceHandler
}

type nameKey struct{}

func (fakeAccess) WhoAmI(ctx context.Context, _ *migcontrollerv1.WhoAmIRequest) (*migcontrollerv1.WhoAmIResponse, error) {
	name, _ := ctx.Value(nameKey{}).(string)
	if name == "" {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("credentials are required"))
	}
	return &migcontrollerv1.WhoAmIResponse{Principal: &migcontrollerv1.Principal{Name: name}}, nil
}

func (fakeAccess) RevokeToken(_ context.Context, req *migcontrollerv1.RevokeTokenRequest) (*migcontrollerv1.RevokeTokenResponse, error) {
	return &migcontrollerv1.RevokeTokenResponse{Token: &migcontrollerv1.Token{Id: req.GetTokenId(), RevokedBy: req.GetReason()}}, nil
}

// newAccess starts a server with a fakeAccess. It asks for client certificates.
func newAccess(t *testing.T, authority *x509.Certificate) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAccessServiceHandler(fakeAccess{}))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get("Authorization")
		if certificates := r.TLS.PeerCertificates; len(certificates) > 0 {
			name = certificates[0].Subject.CommonName
		}
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), nameKey{}, name)))
	}))
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // handshakes fail here on purpose
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// issuer issues client certificates into two files.
type issuer struct {
	t                 *testing.T
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, certFile: filepath.Join(t.TempDir(), "cert.pem"), keyFile: filepath.Join(t.TempDir(), "key.pem")}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	i.cert, i.key = i.sign("CA", template, nil, nil)
	return i
}

// issue writes a new certificate with this name, and its key.
func (i *issuer) issue(name string) {
	i.t.Helper()
	cert, key := i.sign(name, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, i.cert, i.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(i.t, err)
	writePEM(i.t, i.certFile, "CERTIFICATE", cert.Raw)
	writePEM(i.t, i.keyFile, "PRIVATE KEY", encoded)
}

func (i *issuer) sign(name string, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(i.t, err)
	template.SerialNumber, template.Subject = big.NewInt(1), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	require.NoError(i.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(i.t, err)
	return cert, key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// whoAmI calls through a new connection.
func whoAmI(t *testing.T, address string, options migclient.Options) (string, error) {
	t.Helper()
	c, err := migclient.Connect(address, options)
	require.NoError(t, err)
	defer c.Close()
	res, err := c.Access.WhoAmI(t.Context(), &migcontrollerv1.WhoAmIRequest{})
	return res.GetPrincipal().GetName(), err
}

// AccessService is called with a token or a client certificate. A certificate that was
// renewed is used from the next connection on.
func TestConnect(t *testing.T) {
	t.Parallel()
	certificates := newIssuer(t)
	server := newAccess(t, certificates.cert)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, ca, "CERTIFICATE", server.Certificate().Raw)

	_, err := whoAmI(t, server.URL, migclient.Options{CAFile: ca})
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	_, err = whoAmI(t, server.URL, migclient.Options{Token: "s3cret"})
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "the server is not trusted")
	for _, options := range []migclient.Options{
		{Token: "s3cret"},
		{TokenSource: func(context.Context) (string, error) { return "s3cret", nil }},
		{Token: "s3cret", Client: []connect.ClientOption{connect.WithProtoJSON()}},
	} {
		options.CAFile = ca
		name, err := whoAmI(t, server.URL, options)
		require.NoError(t, err)
		require.Equal(t, "Bearer s3cret", name)
	}
	certificates.issue("ann")
	with := migclient.Options{CAFile: ca, CertFile: certificates.certFile, KeyFile: certificates.keyFile}
	c, err := migclient.Connect(server.URL, with)
	require.NoError(t, err)
	defer c.Close()
	for _, name := range []string{"ann", "ben"} {
		certificates.issue(name)
		c.Close()
		res, err := c.Access.WhoAmI(t.Context(), &migcontrollerv1.WhoAmIRequest{})
		require.NoError(t, err)
		require.Equal(t, name, res.GetPrincipal().GetName())
	}
	revoked, err := c.Access.RevokeToken(t.Context(), &migcontrollerv1.RevokeTokenRequest{TokenId: "tok-1", Reason: "lost"})
	require.NoError(t, err)
	require.Equal(t, "tok-1 lost", revoked.GetToken().GetId()+" "+revoked.GetToken().GetRevokedBy())
}

// Options that contradict each other, and files that cannot be used, are errors at once.
func TestConnectOptions(t *testing.T) {
	t.Parallel()
	certificates := newIssuer(t)
	certificates.issue("ann")
	source := func(context.Context) (string, error) { return "s3cret", nil }
	const address = "https://localhost:1"
	for _, test := range []struct {
		address string
		options migclient.Options
		message string
	}{
		{"localhost:1", migclient.Options{}, "address must be"},
		{address, migclient.Options{Token: "s3cret", TokenSource: source}, "at most one of Token and TokenSource"},
		{address, migclient.Options{Token: "two words"}, "token must be printable"},
		{"http://localhost:1", migclient.Options{CAFile: certificates.certFile}, "with an https address"},
		{address, migclient.Options{CAFile: "/nowhere/at/all"}, "CAFile: open"},
		{address, migclient.Options{CAFile: certificates.keyFile}, "CAFile must contain a PEM certificate"},
		{address, migclient.Options{CertFile: certificates.certFile}, "must be given together"},
		{address, migclient.Options{CertFile: certificates.keyFile, KeyFile: certificates.keyFile}, "client certificate: "},
	} {
		_, err := migclient.Connect(test.address, test.options)
		require.ErrorContains(t, err, test.message)
	}
}

// A token does not follow a redirect.
func TestConnectStays(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "localhost:0")
	require.NoError(t, err)
	requests := make(chan string, 2)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Header.Get("Authorization")
		http.Redirect(w, r, "http://"+listener.Addr().String()+"/again", http.StatusTemporaryRedirect)
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	_, err = whoAmI(t, "http://"+listener.Addr().String(), migclient.Options{Token: "s3cret"})
	require.Error(t, err)
	require.Equal(t, "Bearer s3cret", <-requests)
	require.Empty(t, requests)
}
