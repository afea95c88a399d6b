package auth

import (
	"net/netip"
	"net/url"
	"strings"
)

// Pattern is a text in which each * stands for any text, including none. Case matters.
type Pattern string

// Matches reports whether the pattern matches all of text. It takes time in proportion to the
// product of both lengths at most.
func (p Pattern) Matches(text string) bool {
	first, rest, wild := strings.Cut(string(p), "*")
	if !wild {
		return text == string(p)
	}
	text, found := strings.CutPrefix(text, first)
	if !found {
		return false
	}
	pieces := strings.Split(rest, "*")
	last := len(pieces) - 1
	for _, piece := range pieces[:last] {
		// The first occurrence leaves the most to the rest.
		if _, text, found = strings.Cut(text, piece); !found {
			return false
		}
	}
	return strings.HasSuffix(text, pieces[last])
}

// Patterns match what one of them matches.
type Patterns []Pattern

// Match returns the first of texts that is matched, and whether there is one.
func (p Patterns) Match(texts ...string) (string, bool) {
	for _, text := range texts {
		for _, pattern := range p {
			if pattern.Matches(text) {
				return text, true
			}
		}
	}
	return "", false
}

// Grant is what a rule gives to the principals that it matches.
type Grant struct {
	Role Role
	// Pools are those that the role is limited to; empty for all.
	Pools []string
}

// Scope returns the scope of the pools.
func (g Grant) Scope() Scope {
	if len(g.Pools) == 0 {
		return AllPools()
	}
	return OnlyPools(g.Pools...)
}

// Issuer is an issuer of identity tokens by OpenID Connect, and what its tokens may do.
type Issuer struct {
	// URL is the issuer, as its tokens have it in the claim iss.
	URL string
	// Audience must be in the claim aud of a token: a token that was issued for another service
	// is rejected.
	Audience string
	// NameClaim is the claim with the name of the principal, if a token has it. Empty is email;
	// without the claim it is sub.
	NameClaim string
	// Rules are in the order in which they are tried. The first that matches decides.
	Rules []ClaimRule
}

// ClaimRule matches tokens that have all of the claims, each with a value that its patterns
// match. It must have one claim at least.
type ClaimRule struct {
	Claims map[string]Patterns
	Grant
}

// CertificateRule matches client certificates of which each attribute with patterns has a
// value that one of them matches. It must have patterns for one attribute at least.
type CertificateRule struct {
	// URI, Email and DNS are about the alternative names of the subject, CN is about its
	// common name.
	URI, Email, DNS, CN Patterns
	Grant
}

// IsIssuerURL reports whether a text can be the URL of an issuer: https, or http to a loopback
// address, without user, query and fragment.
func IsIssuerURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http" && IsLoopback(u)) && u.Hostname() != "" &&
		u.User == nil && !strings.ContainsAny(text, "?#")
}

// IsLoopback reports whether a URL leads to this machine.
func IsLoopback(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback() || u.Hostname() == "localhost"
}
