package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// verified returns the state of a connection whose client certificate is verified, as package
// tls does.
func verified(t *testing.T, ca testkit.CA, template x509.Certificate) *tls.ConnectionState {
	t.Helper()
	leaf := ca.Client(t, template).Leaf
	return &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca.Cert}},
	}
}

// ann returns a template with each of the attributes.
func ann(t *testing.T) x509.Certificate {
	t.Helper()
	u, err := url.Parse("spiffe://example.com/ops/ann")
	require.NoError(t, err)
	return x509.Certificate{
		Subject: pkix.Name{CommonName: "ann.ops.example.com"}, URIs: []*url.URL{u},
		EmailAddresses: []string{"ann@example.com"}, DNSNames: []string{"one.example.com", "two.example.com"},
	}
}

// always trusts every CA.
func always(*x509.Certificate) bool { return true }

// The first rule that matches a certificate gives the role and the pools; its value is the name.
func TestCertificateRules(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t, "operators", testkit.FarOff)
	state := verified(t, ca, ann(t))
	for _, test := range []struct {
		rule CertificateRule
		want string // the name; empty if the rule does not match
	}{
		{CertificateRule{CN: Patterns{"*.ops.example.com"}}, "ann.ops.example.com"},
		{CertificateRule{CN: Patterns{"ann"}}, ""},
		{CertificateRule{URI: Patterns{"spiffe://example.com/ops/*"}}, "spiffe://example.com/ops/ann"},
		{CertificateRule{URI: Patterns{"ann.ops.example.com"}}, ""},
		{CertificateRule{DNS: Patterns{"two.example.com"}}, "two.example.com"},
		{CertificateRule{DNS: Patterns{"ann.ops.example.com"}}, ""},
		{CertificateRule{Email: Patterns{"bob@*", "ann@*"}}, "ann@example.com"},
		{CertificateRule{Email: Patterns{"*"}, CN: Patterns{"ann*"}}, "ann@example.com"},
		{CertificateRule{Email: Patterns{"*"}, CN: Patterns{"bob*"}}, ""},
		{CertificateRule{}, ""},
	} {
		test.rule.Grant = Grant{Role: Operator, Pools: []string{"linux"}}
		after := CertificateRule{CN: Patterns{"*"}, Grant: Grant{Role: Viewer}}
		p, given, err := NewCertificates([]CertificateRule{test.rule, after}, always, time.Now).Authenticate(state)
		require.True(t, given)
		require.NoError(t, err)
		want := Principal{Name: test.want, Method: ByCertificate, Role: Operator, Scope: OnlyPools("linux"), ExpiresAt: testkit.FarOff}
		if test.want == "" {
			want.Name, want.Role, want.Scope = "ann.ops.example.com", Viewer, AllPools()
		}
		require.True(t, p.Holds())
		p.Holds = nil // functions are not equal
		require.Equal(t, want, p, "%+v", test.rule)

		p, given, err = NewCertificates([]CertificateRule{test.rule}, always, time.Now).Authenticate(state)
		require.True(t, given)
		if test.want == "" {
			require.ErrorIs(t, err, ErrCertificateUnmatched)
			require.ErrorContains(t, err, `it has cn "ann.ops.example.com", uri "spiffe://example.com/ops/ann", email "ann@example.com", dns "one.example.com"`)
			require.Zero(t, p)
		}
	}
}

// Attributes that a certificate does not have match nothing, and strange ones are no names.
func TestStrangeCertificates(t *testing.T) {
	t.Parallel()
	ca := testkit.NewCA(t, "operators", testkit.FarOff)
	all := Patterns{"*"}
	rules := []CertificateRule{{CN: all}, {URI: all}, {DNS: all}, {Email: all}}
	for name, template := range map[string]x509.Certificate{
		"without attributes": {},
		"a line break":       {Subject: pkix.Name{CommonName: "ann\nlevel=INFO"}},
		"a very long name":   {Subject: pkix.Name{CommonName: strings.Repeat("x", 10_000)}},
	} {
		p, given, err := NewCertificates(rules, always, time.Now).Authenticate(verified(t, ca, template))
		require.True(t, given, name)
		require.ErrorIs(t, err, ErrCertificateUnmatched, name)
		require.Less(t, len(err.Error()), 600)
		require.NotContains(t, err.Error(), "\n")
		require.Zero(t, p)
	}
}

// A connection without a certificate is nobody's, and one whose certificate was not verified is
// rejected.
func TestWithoutCertificate(t *testing.T) {
	t.Parallel()
	c := NewCertificates([]CertificateRule{{CN: Patterns{"*"}}}, always, time.Now)
	for _, state := range []*tls.ConnectionState{nil, {}} {
		p, given, err := c.Authenticate(state)
		require.NoError(t, err)
		require.False(t, given)
		require.Zero(t, p)
	}
	state := verified(t, testkit.NewCA(t, "operators", testkit.FarOff), ann(t))
	for _, chains := range [][][]*x509.Certificate{nil, {{}}} {
		state.VerifiedChains = chains
		p, given, err := c.Authenticate(state)
		require.True(t, given)
		require.ErrorIs(t, err, ErrCertificateUntrusted)
		require.Zero(t, p)
	}
}

// A connection can outlive its certificate, and that of its CA: the time is checked at each
// request.
func TestCertificateExpires(t *testing.T) {
	t.Parallel()
	begins, ends := time.Unix(1000, 0).UTC(), time.Unix(2000, 0).UTC()
	template := ann(t)
	template.NotBefore = begins
	for _, caEnds := range []bool{true, false} {
		ca := testkit.NewCA(t, "operators", testkit.FarOff)
		if caEnds {
			ca = testkit.NewCA(t, "operators", ends)
		} else {
			template.NotAfter = ends
		}
		state := verified(t, ca, template)
		for now, want := range map[time.Time]error{
			begins.Add(-time.Second): ErrCertificateExpired, begins: nil, ends: nil, ends.Add(time.Second): ErrCertificateExpired,
		} {
			c := NewCertificates([]CertificateRule{{CN: Patterns{"*"}}}, always, func() time.Time { return now })
			p, given, err := c.Authenticate(state)
			require.True(t, given)
			require.ErrorIs(t, err, want)
			if want == nil {
				require.Equal(t, ends, p.ExpiresAt)
			}
		}
	}
}

// When the CA is replaced, certificates of the old one are rejected on open connections too. A
// second chain, to a CA that is still trusted, suffices.
func TestCAIsReplaced(t *testing.T) {
	t.Parallel()
	old, renewed := testkit.NewCA(t, "operators", testkit.FarOff), testkit.NewCA(t, "operators", testkit.FarOff)
	trusted := old.Cert
	c := NewCertificates([]CertificateRule{{CN: Patterns{"*"}}}, func(ca *x509.Certificate) bool { return trusted.Equal(ca) }, time.Now)
	state := verified(t, old, ann(t))
	p, _, err := c.Authenticate(state)
	require.NoError(t, err)
	require.True(t, p.Holds())
	trusted = renewed.Cert
	require.False(t, p.Holds(), "which ends calls that are open")
	_, _, err = c.Authenticate(state)
	require.ErrorIs(t, err, ErrCertificateUntrusted)
	state.VerifiedChains = append(state.VerifiedChains, []*x509.Certificate{state.PeerCertificates[0], renewed.Cert})
	_, _, err = c.Authenticate(state)
	require.NoError(t, err)
}
