package config

import (
	"crypto/tls"
	"os"
)

// TLS reports whether the options name a certificate and its key. It returns an
// *OptionError when they name only one of them.
func (o Options) TLS() (bool, error) {
	switch {
	case o.TLSCert == "" && o.TLSKey == "":
		return false, nil
	case o.TLSKey == "":
		return false, o.invalid("tls-cert", "must be given with --tls-key")
	case o.TLSCert == "":
		return false, o.invalid("tls-key", "must be given with --tls-cert")
	}
	return true, nil
}

// Certificate reads the certificate and its key. It returns an *OptionError when they are not
// usable.
func (o Options) Certificate() (*tls.Certificate, error) {
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
