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

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// lookAgain is the least time between two looks whether the files of the
// certificate have changed.
const lookAgain = 5 * time.Second

// Certificate is the one that the server shows. It is read again when its files change. It
// is safe for concurrent use.
type Certificate struct {
	files   [2]string
	read    func() (*tls.Certificate, error)
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	looking sync.Mutex // guards what follows
	looked  time.Time
	served  versions // of the files, when current was read
	refused versions // of the files, when they were last found to be unusable
}

// versions distinguish one content of the two files from the next.
type versions [2]struct{ modified, size int64 }

// NewCertificate returns the certificate that read reads from the two files, or read's
// error.
func NewCertificate(files [2]string, read func() (*tls.Certificate, error), log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: files, read: read, log: log, looked: time.Now()}
	c.served = c.found()
	pair, err := read()
	if err != nil {
		return nil, err
	}
	c.show(pair)
	return c, nil
}

// ValidUntil returns when the certificate expires.
func (c *Certificate) ValidUntil() time.Time { return c.current.Load().Leaf.NotAfter }

// found returns the versions of the files that there are now.
func (c *Certificate) found() (v versions) {
	for i, path := range c.files {
		if info, err := os.Stat(path); err == nil {
			v[i].modified, v[i].size = info.ModTime().UnixNano(), info.Size()
		}
	}
	return v
}

// show has the next handshakes use this certificate.
func (c *Certificate) show(pair *tls.Certificate) {
	c.current.Store(pair)
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate is not valid now: clients that check it cannot connect",
			validFromKey, pair.Leaf.NotBefore, validUntilKey, pair.Leaf.NotAfter)
	}
}

// look reads the files again if they have changed. A pair that cannot be used is logged
// once, and tried again until it can be.
func (c *Certificate) look() {
	if time.Since(c.looked) < lookAgain {
		return
	}
	c.looked = time.Now()
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

// ServerConfig is for what shows the certificate.
func (c *Certificate) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c.looking.TryLock() { // a handshake does not wait for the files
				c.look()
				c.looking.Unlock()
			}
			return c.current.Load(), nil
		},
	}
}

// ClientConfig is for clients in this process, which need no authority to recognise the
// server: they have its certificate. The names in it do not matter.
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
