package oidc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// Authenticator authenticates operators by identity tokens. It is safe for concurrent use.
type Authenticator struct {
	issuers map[string]*issuer // by URL
	cache   *cache
	now     func() time.Time
}

// New returns the authenticator for tokens of the issuers, which must have different URLs. It
// asks an issuer only when the first of its tokens arrives: an issuer that is down delays
// nothing. The requests are sent by the transport of client; nil is one for the Internet. metrics
// registers the metrics; nil registers none.
func New(issuers []auth.Issuer, client *http.Client, now func() time.Time, log *slog.Logger, r prometheus.Registerer) *Authenticator {
	a := &Authenticator{issuers: map[string]*issuer{}, cache: newCache(), now: now}
	var base http.RoundTripper
	if client != nil {
		base = client.Transport
	}
	if base == nil {
		base = newTransport()
	}
	m := newMetrics(r)
	for _, config := range issuers {
		a.issuers[config.URL] = newIssuer(config, base, m, log)
	}
	return a
}

// Authenticate returns the principal of a token, or an error that wraps one of this package, or
// that of ctx. A token that was accepted before is known by its hash until it expires.
// Otherwise Authenticate first checks what is cheap to check; only a token that could be valid
// is verified, which may take 10 s if its issuer has to be asked.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (auth.Principal, error) {
	if len(token) > MaxToken {
		return auth.Principal{}, fmt.Errorf("%w: it must be of at most 8 KiB", ErrMalformed)
	}
	key := hashOf(token)
	if p, known := a.cache.get(key, a.now()); known {
		return p, nil
	}
	i, err := a.issuerOf(token)
	if err != nil {
		return auth.Principal{}, err
	}
	c, err := i.verify(ctx, token)
	if err != nil {
		return auth.Principal{}, err
	}
	p, err := i.principal(c, a.now())
	if err == nil {
		a.cache.put(key, p, a.now())
	}
	return p, err
}

// issuerOf returns the issuer of a token that could be valid. Nothing is verified yet.
func (a *Authenticator) issuerOf(token string) (*issuer, error) {
	c, err := parse(token)
	if err != nil {
		return nil, err
	}
	url, _ := c["iss"].(string) // anything else is not one of them
	i, known := a.issuers[url]
	if !known {
		return nil, fmt.Errorf("%w: its claim iss is %.200q", ErrIssuer, url)
	}
	return i, c.check(i.Audience, a.now())
}

// principal returns the principal with these verified claims.
func (i *issuer) principal(c claims, now time.Time) (auth.Principal, error) {
	if err := c.check(i.Audience, now); err != nil {
		return auth.Principal{}, err
	}
	name := c.name(i.NameClaim)
	if name == "" {
		return auth.Principal{}, fmt.Errorf("%w: its claim sub must be a printable text of at most %d bytes", ErrMalformed, auth.MaxName)
	}
	grant, found := c.match(i.Rules)
	if !found {
		return auth.Principal{}, fmt.Errorf("%w of %q, which is valid and has the claims %s", ErrUnmatched, name, c.names())
	}
	ends, err := c.ends()
	return auth.Principal{
		Name: name, Method: auth.ByOIDC, Role: grant.Role, Scope: grant.Scope(), ExpiresAt: ends,
	}, err
}
