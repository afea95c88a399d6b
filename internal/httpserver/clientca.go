package httpserver

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"slices"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// ClientCAs are the CAs of client certificates. They are read again when their file changes.
// They are safe for concurrent use.
type ClientCAs struct {
	watched[clientCAs]
}

// clientCAs are the CAs of one version of the file.
type clientCAs struct {
	all  []*x509.Certificate
	pool *x509.CertPool
}

// NewClientCAs returns the CAs that read reads from the file, or the error of read.
func NewClientCAs(file string, read func() ([]*x509.Certificate, error), log *slog.Logger) (*ClientCAs, error) {
	c := new(ClientCAs)
	c.files = []string{file}
	c.read = func() (*clientCAs, error) {
		all, err := read()
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		for _, ca := range all {
			pool.AddCert(ca)
		}
		return &clientCAs{all, pool}, nil
	}
	c.changed = func(now *clientCAs) {
		log.Info("the CAs of client certificates were read again", logkey.Count, len(now.all))
	}
	c.unusable = func(err error) {
		log.Warn("the new CAs of client certificates cannot be used; the old ones are kept", logkey.Error, err)
	}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// Trusts reports whether ca is one of the CAs now.
func (c *ClientCAs) Trusts(ca *x509.Certificate) bool {
	return slices.ContainsFunc(c.latest().all, ca.Equal)
}

// Accept returns the configuration of a server that also accepts client certificates. Clients
// need not have one, but one that they send must be valid and signed by a CA, or the handshake
// fails. There are no session tickets: the resumption of a session would not verify the
// certificate.
func (c *ClientCAs) Accept(config *tls.Config) *tls.Config {
	accepting := config.Clone()
	accepting.ClientAuth = tls.VerifyClientCertIfGiven
	accepting.SessionTicketsDisabled = true
	handshake := accepting.Clone()
	accepting.ClientCAs = c.current.Load().pool // without any, those of the system would be trusted
	accepting.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		latest := handshake.Clone()
		latest.ClientCAs = c.latest().pool
		return latest, nil
	}
	return accepting
}
