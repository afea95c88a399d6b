package migclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// Options are how to reach a controller, and the credentials for it. All may be left out.
type Options struct {
	// Token is sent with every call. At most one of Token and TokenSource may be given.
	Token       string
	TokenSource TokenSource
	// PlaintextToken allows the token to be sent over plaintext http to another machine,
	// which lets others read it on its way.
	PlaintextToken bool
	// CAFile has the authorities to trust instead of the system's, as PEM.
	CAFile string
	// CertFile and KeyFile are the client's certificate, with the chain up to its
	// authority, and its key, as PEM. They are read again for each connection, so that they
	// can be renewed.
	CertFile, KeyFile string
	// Client are more options of the clients, such as the protocol.
	Client []connect.ClientOption
}

// Controller has the clients of a controller for operators and tools. It is safe for
// concurrent use.
type Controller struct {
	Admin  migcontrollerv1connect.AdminServiceClient
	Access migcontrollerv1connect.AccessServiceClient

	http *http.Client
}

// Connect returns the clients of the controller at an http or https address. It opens no
// connection: whether the controller answers shows with the first call. It returns
// ErrPlaintextToken like WithToken, and errors for invalid options; they do not contain the
// token. Redirects are not followed.
func Connect(address string, options Options) (*Controller, error) {
	u, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	secure, err := options.tlsConfig(u.Scheme)
	if err != nil {
		return nil, err
	}
	client, err := options.clientOptions(address)
	if err != nil {
		return nil, err
	}
	transport := newTransport()
	transport.TLSClientConfig = secure
	c := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Controller{
		Admin:  migcontrollerv1connect.NewAdminServiceClient(c, address, client...),
		Access: migcontrollerv1connect.NewAccessServiceClient(c, address, client...),
		http:   c,
	}, nil
}

func newTransport() *http.Transport {
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		return standard.Clone()
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
}

// Close closes the connections that no call uses.
func (c *Controller) Close() { c.http.CloseIdleConnections() }

func (o Options) clientOptions(address string) ([]connect.ClientOption, error) {
	if o.Token != "" && o.TokenSource != nil {
		return nil, errors.New("at most one of Token and TokenSource may be given")
	}
	var how []TokenOption
	if o.PlaintextToken {
		how = append(how, PlaintextToken)
	}
	var auth connect.ClientOption
	var err error
	switch {
	case o.TokenSource != nil:
		auth, err = WithTokenSource(address, o.TokenSource, how...)
	case o.Token != "":
		auth, err = WithToken(address, o.Token, how...)
	default:
		return o.Client, nil
	}
	return append([]connect.ClientOption{auth}, o.Client...), err
}

func (o Options) tlsConfig(scheme string) (*tls.Config, error) {
	if scheme != "https" && (o.CAFile != "" || o.CertFile != "" || o.KeyFile != "") {
		return nil, errors.New("CAFile, CertFile and KeyFile must only be given with an https address")
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		content, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CAFile: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(content) {
			return nil, errors.New("CAFile must contain a PEM certificate")
		}
	}
	if o.CertFile == "" && o.KeyFile == "" {
		return secure, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, errors.New("CertFile and KeyFile must be given together")
	}
	secure.GetClientCertificate = ClientCertificate(o.CertFile, o.KeyFile)
	_, err := secure.GetClientCertificate(nil)
	return secure, err
}

// ClientCertificate returns a function for GetClientCertificate of a tls.Config. It reads
// the files for each connection, so that they can be renewed.
func ClientCertificate(certFile, keyFile string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &pair, nil
	}
}
