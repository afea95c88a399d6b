package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/stretchr/testify/require"
)

// Issuer is an OpenID Connect issuer, whose configuration and keys it serves as a handler.
type Issuer struct {
	url     string
	key     *ecdsa.PrivateKey
	handler http.Handler
}

// NewIssuer makes one with this URL, which may have a path.
func NewIssuer(t *testing.T, issuerURL string) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s := &oidctest.Server{
		PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: issuerKey, Algorithm: issuerAlgorithm}},
		Algorithms: []string{issuerAlgorithm},
	}
	s.SetIssuer(issuerURL)
	u, err := url.Parse(issuerURL)
	require.NoError(t, err)
	return &Issuer{url: issuerURL, key: key, handler: http.StripPrefix(u.Path, s)}
}

const (
	issuerKey       = "key"
	issuerAlgorithm = "ES256"
)

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.handler.ServeHTTP(w, r) }

// Token returns an identity token with these claims, valid for five minutes unless they say
// something else.
func (i *Issuer) Token(t *testing.T, claims map[string]any) string {
	t.Helper()
	now := time.Now()
	all := map[string]any{"iss": i.url, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	maps.Copy(all, claims)
	content, err := json.Marshal(all)
	require.NoError(t, err)
	return oidctest.SignIDToken(i.key, issuerKey, issuerAlgorithm, string(content))
}
