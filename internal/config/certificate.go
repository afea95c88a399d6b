package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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

// ClientCA reports whether the options name CAs of operators' client certificates. It returns
// an *OptionError when they do so without a certificate of the server or without rules, or have
// only rules.
func (o Options) ClientCA() (bool, error) {
	const option, rules = "operator-client-ca", "operators.certificates in the configuration file"
	switch {
	case o.OperatorClientCA == "" && len(o.Operators.Certificates) == 0:
		return false, nil
	case o.OperatorClientCA == "":
		return false, o.invalid(option, "must be given with %s", rules)
	case o.TLSCert == "":
		return false, o.invalid(option, "must be given with --tls-cert: without TLS there are no client certificates")
	case len(o.Operators.Certificates) == 0:
		return false, o.invalid(option, "must be given with rules, which are %s", rules)
	}
	return true, nil
}

// maxCAs is how many CAs the file may have.
const maxCAs = 100

// ClientCAs reads the CAs of operators' client certificates. It returns an *OptionError when the
// file is not usable.
func (o Options) ClientCAs() ([]*x509.Certificate, error) {
	const option = "operator-client-ca"
	content, err := os.ReadFile(o.OperatorClientCA)
	if err != nil {
		return nil, o.invalid(option, "must name a file that can be read: %v", err)
	}
	rule := fmt.Sprintf("must have 1 to %d certificates of CAs in PEM, and nothing else", maxCAs)
	var all []*x509.Certificate
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil || !ca.IsCA {
			return nil, o.invalid(option, "%s", rule)
		}
		all = append(all, ca)
	}
	if len(all) == 0 || len(all) > maxCAs {
		return nil, o.invalid(option, "%s", rule)
	}
	return all, nil
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
