package httpserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// Certificate is the certificate of the server. It is read again when its files change. It is
// safe for concurrent use.
type Certificate struct {
	watched[tls.Certificate]

	log *slog.Logger
}

// NewCertificate returns the certificate that read reads from the two files, or the error of
// read. metrics registers its metric; nil registers none.
func NewCertificate(
	files [2]string, read func() (*tls.Certificate, error), log *slog.Logger, metrics prometheus.Registerer,
) (*Certificate, error) {
	c := &Certificate{log: log}
	c.files, c.read, c.changed, c.unusable = files[:], read, c.renewed, c.keepOld
	if err := c.open(); err != nil {
		return nil, err
	}
	c.warnOfTime(c.current.Load())
	c.register(metrics)
	return c, nil
}

// ValidUntil returns when the certificate expires.
func (c *Certificate) ValidUntil() time.Time { return c.current.Load().Leaf.NotAfter }

func (c *Certificate) renewed(pair *tls.Certificate) {
	c.log.Info("the certificate was renewed", validUntilKey, pair.Leaf.NotAfter)
	c.warnOfTime(pair)
}

func (c *Certificate) keepOld(err error) {
	c.log.Warn("the new certificate cannot be used; the old one is kept", logkey.Error, err)
}

func (c *Certificate) warnOfTime(pair *tls.Certificate) {
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate is not valid now: clients that check it cannot connect",
			validFromKey, pair.Leaf.NotBefore, validUntilKey, pair.Leaf.NotAfter)
	}
}

// ServerConfig returns the TLS configuration of the server.
func (c *Certificate) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.latest(), nil
		},
	}
}

// ClientConfig returns the TLS configuration of clients in this process. They compare the
// server's certificate with their own copy, so they need no certificate authority and ignore
// its names.
func (c *Certificate) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks more than would be skipped
		VerifyConnection: func(s tls.ConnectionState) error {
			if !bytes.Equal(s.PeerCertificates[0].Raw, c.current.Load().Leaf.Raw) {
				return errors.New("this is not the server's own certificate")
			}
			return nil
		},
	}
}
