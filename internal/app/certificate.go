package app

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookAgain is the least time between two looks whether the files of the
// certificate have changed.
const lookAgain = 5 * time.Second

// certificate is the one that the controller shows, as --tls-cert and --tls-key
// have it. It is safe for concurrent use.
type certificate struct {
	options Options
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	looking sync.Mutex // guards what follows
	looked  time.Time
	served  versions // of the files, when current was read
	refused versions // of the files, when they were last found to be no good
}

// versions tell one content of the two files from the next.
type versions [2]struct{ modified, size int64 }

// readCertificate returns the certificate that the options name, nil when they
// name none, or an *OptionError.
func (o Options) readCertificate(log *slog.Logger) (*certificate, error) {
	switch {
	case o.TLSCert == "" && o.TLSKey == "":
		return nil, nil //nolint:nilnil // it is what the controller serves with
	case o.TLSKey == "":
		return nil, o.invalid("tls-cert", "must be given with --tls-key")
	case o.TLSCert == "":
		return nil, o.invalid("tls-key", "must be given with --tls-cert")
	}
	c := &certificate{options: o, log: log, looked: time.Now(), served: o.certificateVersions()}
	pair, err := o.readPair()
	if err != nil {
		return nil, err
	}
	c.serve(pair)
	return c, nil
}

func (o Options) certificateVersions() (v versions) {
	for i, path := range []string{o.TLSCert, o.TLSKey} {
		if info, err := os.Stat(path); err == nil {
			v[i].modified, v[i].size = info.ModTime().UnixNano(), info.Size()
		}
	}
	return v
}

// readPair reads both files. It returns an *OptionError.
func (o Options) readPair() (*tls.Certificate, error) {
	const readable = "must name a file that can be read: %v"
	chain, err := os.ReadFile(o.TLSCert)
	if err != nil {
		return nil, o.invalid("tls-cert", readable, err)
	}
	key, err := os.ReadFile(o.TLSKey)
	if err != nil {
		return nil, o.invalid("tls-key", readable, err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, o.invalid("tls-cert", "and --tls-key must be a certificate and its key in PEM: %v", err)
	}
	return &pair, nil
}

// serve has the next handshakes get this certificate.
func (c *certificate) serve(pair *tls.Certificate) {
	c.current.Store(pair)
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate is not valid now: those who check it do not connect",
			validFromKey, pair.Leaf.NotBefore, validUntilKey, pair.Leaf.NotAfter)
	}
}

// look reads the files again if they have changed. What cannot be used is warned
// of once, and tried again until it can be.
func (c *certificate) look() {
	if time.Since(c.looked) < lookAgain {
		return
	}
	c.looked = time.Now()
	found := c.options.certificateVersions()
	if found == c.served {
		return
	}
	pair, err := c.options.readPair()
	if err != nil {
		if found != c.refused {
			c.log.Warn("the new certificate cannot be used; the old one is kept", errorKey, err)
		}
		c.refused = found
		return
	}
	c.served = found
	c.log.Info("the certificate was renewed", validUntilKey, pair.Leaf.NotAfter)
	c.serve(pair)
}

// config is how the controller speaks TLS.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c.looking.TryLock() { // nobody waits for the one who looks
				c.look()
				c.looking.Unlock()
			}
			return c.current.Load(), nil
		},
	}
}

// clientConfig is for clients in this process, which need no authority to know
// the controller: they have its certificate. Whom it names may be elsewhere.
func (c *certificate) clientConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks more than would be skipped
		VerifyConnection: func(s tls.ConnectionState) error {
			if !bytes.Equal(s.PeerCertificates[0].Raw, c.current.Load().Leaf.Raw) {
				return errors.New("this is not the controller's own certificate")
			}
			return nil
		},
	}
}
