package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The reasons why a client certificate is rejected that package tls has verified. Their texts
// are for the caller.
var (
	// ErrCertificateExpired occurs when a certificate is not valid at the moment: connections
	// last longer than the handshake in which it was verified.
	ErrCertificateExpired = errors.New("the client certificate has expired or is not valid yet: connect again with a valid one")
	// ErrCertificateUntrusted occurs when the certificate's CA is no longer one of
	// --operator-client-ca.
	ErrCertificateUntrusted = errors.New("the client certificate is not signed by a CA that this controller trusts: " +
		"an administrator of the controller can add the CA to --operator-client-ca")
	// ErrCertificateUnmatched occurs when no rule is about the certificate.
	ErrCertificateUnmatched = fmt.Errorf("no rule in operators.certificates matches the client certificate: "+
		"%w in the controller's configuration file", ErrForbidden)
)

// Certificates authenticate operators by their client certificates. They are safe for
// concurrent use.
type Certificates struct {
	rules  []CertificateRule
	trusts func(root *x509.Certificate) bool
	now    func() time.Time
}

// NewCertificates returns the authenticator with these rules; the first that matches a
// certificate decides. trusts reports whether a certificate is one of a CA of operators now.
func NewCertificates(rules []CertificateRule, trusts func(root *x509.Certificate) bool, now func() time.Time) *Certificates {
	return &Certificates{rules: rules, trusts: trusts, now: now}
}

// Authenticate returns the principal of the client certificate of a connection, whose chain
// package tls has verified in the handshake. What can have changed since is checked again: its
// validity, and whether its CA is trusted. given is whether there is a certificate; err is one
// of the reasons why it is rejected. A connection without TLS has no state.
func (c *Certificates) Authenticate(state *tls.ConnectionState) (p Principal, given bool, err error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Principal{}, false, nil
	}
	until, err := c.validUntil(state.VerifiedChains)
	if err != nil {
		return Principal{}, true, err
	}
	leaf := state.PeerCertificates[0]
	for _, rule := range c.rules {
		name, matched := rule.match(leaf)
		if !matched {
			continue
		}
		if !IsName(name) {
			return Principal{}, true, fmt.Errorf("%w; its name must be printable and of at most %d bytes", ErrCertificateUnmatched, MaxName)
		}
		return Principal{
			Name: name, Method: ByCertificate, Role: rule.Role, Scope: rule.Scope(), ExpiresAt: until,
			Holds: func() bool {
				_, err := c.validUntil(state.VerifiedChains)
				return err == nil
			},
		}, true, nil
	}
	return Principal{}, true, fmt.Errorf("%w; it has %s", ErrCertificateUnmatched, attributes(leaf))
}

// validUntil returns until when one of the chains is valid.
func (c *Certificates) validUntil(chains [][]*x509.Certificate) (until time.Time, err error) {
	err = ErrCertificateUntrusted
	now := c.now()
	for _, chain := range chains {
		if len(chain) == 0 || !c.trusts(chain[len(chain)-1]) {
			continue
		}
		begins, ends := chain[0].NotBefore, chain[0].NotAfter
		for _, cert := range chain[1:] {
			if cert.NotBefore.After(begins) {
				begins = cert.NotBefore
			}
			if cert.NotAfter.Before(ends) {
				ends = cert.NotAfter
			}
		}
		switch {
		case now.Before(begins) || now.After(ends):
			if until.IsZero() {
				err = ErrCertificateExpired
			}
		case ends.After(until):
			until, err = ends, nil
		}
	}
	return until, err
}

// match returns the value that the first of the rule's attributes matches, and whether all of
// them match one.
func (r CertificateRule) match(cert *x509.Certificate) (name string, matched bool) {
	for _, attribute := range []struct {
		patterns Patterns
		values   []string
	}{
		{r.URI, uris(cert)},
		{r.Email, cert.EmailAddresses},
		{r.DNS, cert.DNSNames},
		{r.CN, commonName(cert)},
	} {
		if len(attribute.patterns) == 0 {
			continue
		}
		value, found := attribute.patterns.Match(attribute.values...)
		if !found {
			return "", false
		}
		if !matched {
			name, matched = value, true
		}
	}
	return name, matched
}

func uris(cert *x509.Certificate) []string {
	all := make([]string, 0, len(cert.URIs))
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return all
}

// commonName returns the common name; nothing if it is empty.
func commonName(cert *x509.Certificate) []string {
	if cert.Subject.CommonName == "" {
		return nil
	}
	return []string{cert.Subject.CommonName}
}

// attributes describes what rules can be about, in words that are short whatever a certificate
// contains.
func attributes(cert *x509.Certificate) string {
	var all []string
	for _, attribute := range []struct {
		name   string
		values []string
	}{
		{"cn", commonName(cert)},
		{"uri", uris(cert)},
		{"email", cert.EmailAddresses},
		{"dns", cert.DNSNames},
	} {
		for i, value := range attribute.values {
			if i == 3 {
				all = append(all, fmt.Sprintf("%d more %s", len(attribute.values)-i, attribute.name))
				break
			}
			all = append(all, fmt.Sprintf("%s %.100q", attribute.name, value))
		}
	}
	if len(all) == 0 {
		return "no cn, uri, email or dns"
	}
	return strings.Join(all, ", ")
}
