package httpserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// checkInterval is the minimum time between two checks of the certificate's files for changes.
const checkInterval = 5 * time.Second

// Certificate is the certificate of the server. It is read again when its files change. It is
// safe for concurrent use.
type Certificate struct {
	files   [2]string
	read    func() (*tls.Certificate, error)
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	checking  sync.Mutex // guards the following fields
	lastCheck time.Time
	served    versions // versions of the files when current was read
	refused   versions // versions of the files when they were last found unusable
}

// versions identify the content of the two files.
type versions [2]struct{ modified, size int64 }

// NewCertificate returns the certificate that read reads from the two files, or the error of
// read. metrics registers its metric; nil registers none.
func NewCertificate(
	files [2]string, read func() (*tls.Certificate, error), log *slog.Logger, metrics prometheus.Registerer,
) (*Certificate, error) {
	c := &Certificate{files: files, read: read, log: log, lastCheck: time.Now()}
	c.served = c.found()
	pair, err := read()
	if err != nil {
		return nil, err
	}
	c.show(pair)
	c.register(metrics)
	return c, nil
}

// ValidUntil returns when the certificate expires.
func (c *Certificate) ValidUntil() time.Time { return c.current.Load().Leaf.NotAfter }

// found returns the current versions of the files.
func (c *Certificate) found() (v versions) {
	for i, path := range c.files {
		if info, err := os.Stat(path); err == nil {
			v[i].modified, v[i].size = info.ModTime().UnixNano(), info.Size()
		}
	}
	return v
}

// show makes later handshakes use this certificate.
func (c *Certificate) show(pair *tls.Certificate) {
	c.current.Store(pair)
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate is not valid now: clients that check it cannot connect",
			validFromKey, pair.Leaf.NotBefore, validUntilKey, pair.Leaf.NotAfter)
	}
}

// check reads the files again if they have changed. An unusable pair is logged once and
// retried until it is usable.
func (c *Certificate) check() {
	if time.Since(c.lastCheck) < checkInterval {
		return
	}
	c.lastCheck = time.Now()
	found := c.found()
	if found == c.served {
		return
	}
	pair, err := c.read()
	if err != nil {
		if found != c.refused {
			c.log.Warn("the new certificate cannot be used; the old one is kept", logkey.Error, err)
		}
		c.refused = found
		return
	}
	c.served = found
	c.log.Info("the certificate was renewed", validUntilKey, pair.Leaf.NotAfter)
	c.show(pair)
}

// ServerConfig returns the TLS configuration of the server.
func (c *Certificate) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c.checking.TryLock() { // so that a handshake does not wait for the files
				c.check()
				c.checking.Unlock()
			}
			return c.current.Load(), nil
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
