package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

const (
	issuerURL = "https://issuer.example.com"
	audience  = "mig-controller"
)

// key signs tokens.
type key struct {
	private crypto.Signer
	id, alg string
}

func newKey(tb testing.TB, id string) key {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return key{private, id, "ES256"}
}

func (k key) public() oidctest.PublicKey {
	return oidctest.PublicKey{PublicKey: k.private.Public(), KeyID: k.id, Algorithm: k.alg}
}

// sign returns a token with these claims.
func (k key) sign(tb testing.TB, c map[string]any) string {
	tb.Helper()
	content, err := json.Marshal(c)
	require.NoError(tb, err)
	return oidctest.SignIDToken(k.private, k.id, k.alg, string(content))
}

// provider is an issuer, which counts the requests that it answers.
type provider struct {
	mu          sync.Mutex
	url         string
	keys        []key
	answer      http.HandlerFunc // instead of its own; nil for none
	discoveries int
	fetches     int
}

func newProvider(tb testing.TB) *provider {
	tb.Helper()
	return &provider{url: issuerURL, keys: []key{newKey(tb, "first")}}
}

// ServeHTTP implements http.Handler.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.URL.Path == "/.well-known/openid-configuration" {
		p.discoveries++
	} else {
		p.fetches++
	}
	if p.answer != nil {
		p.answer(w, r)
		return
	}
	p.serve(w, r)
}

// serve answers as an issuer does.
func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	s := oidctest.Server{Algorithms: []string{"ES256", "RS256", "HS256", "none"}}
	for _, k := range p.keys {
		s.PublicKeys = append(s.PublicKeys, k.public())
	}
	s.SetIssuer(p.url)
	s.ServeHTTP(w, r)
}

// RoundTrip implements http.RoundTripper without a network, so that it can be used with a fake
// clock.
func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code == unreachable {
		return nil, errors.New("no route to host")
	}
	response := w.Result()
	response.Request = r
	return response, nil
}

// unreachable is the status that stands for an issuer that cannot be reached.
const unreachable = 599

func refuse(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(unreachable) }

// set changes the issuer; nil is its own answer.
func (p *provider) set(answer http.HandlerFunc, keys ...key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
	if len(keys) > 0 {
		p.keys = keys
	}
}

// counts returns how often the issuer was asked for its configuration and its keys.
func (p *provider) counts() (discoveries, fetches int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.discoveries, p.fetches
}

// token returns a token of the issuer, with these claims in addition to the usual ones, which
// nil removes.
func (p *provider) token(tb testing.TB, more map[string]any) string {
	tb.Helper()
	return p.keys[0].sign(tb, p.claims(more))
}

func (p *provider) claims(more map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{
		"iss": p.url, "aud": audience, "sub": "id-1", "email": "ann@example.com", "email_verified": true,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range more {
		if value == nil {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	return maps.Clone(all)
}

// everyone is a rule for all tokens.
func everyone() []auth.ClaimRule {
	return []auth.ClaimRule{{Claims: map[string]auth.Patterns{"sub": {"*"}}, Grant: auth.Grant{Role: auth.Viewer}}}
}

// authenticator returns one for the tokens of the issuer.
func (p *provider) authenticator(rules []auth.ClaimRule, log io.Writer) *Authenticator {
	return New([]auth.Issuer{{URL: p.url, Audience: audience, Rules: rules}}, &http.Client{Transport: p}, time.Now,
		slog.New(slog.NewTextHandler(log, nil)), nil)
}

// rejected requires that a token is rejected for this reason, in words that do not contain it.
func rejected(t *testing.T, a *Authenticator, token string, reason error) {
	t.Helper()
	p, err := a.Authenticate(t.Context(), token)
	require.ErrorIs(t, err, reason)
	require.Zero(t, p, "nobody is authenticated")
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 20 {
			require.NotContains(t, err.Error(), part)
		}
	}
}

func (p *provider) client() *http.Client { return &http.Client{Transport: p} }

// clientOf returns a client for which these issuers are the Internet.
func clientOf(all ...*provider) *http.Client { return &http.Client{Transport: internet(all)} }

type internet []*provider

// RoundTrip implements http.RoundTripper.
func (i internet) RoundTrip(r *http.Request) (*http.Response, error) {
	for _, p := range i {
		if strings.HasPrefix(r.URL.String(), p.url+"/") {
			return p.RoundTrip(r)
		}
	}
	return nil, errors.New("no such host")
}
