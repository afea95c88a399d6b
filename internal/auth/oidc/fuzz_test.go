package oidc

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// Whatever is sent as a token, nobody is authenticated without a signature, the issuer is asked
// only for a token that could be valid, and the error is short.
func FuzzAuthenticate(f *testing.F) {
	f.Add("")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSJ9.eA")
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsImF1ZCI6Im1pZy1jb250cm9sbGVyIiwiZXhwIjoyNTM0MDIzMDA3OTl9.eA")
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOltbXV0sImV4cCI6MWU5OTl9.eA")
	a := New([]auth.Issuer{{URL: issuerURL, Audience: audience, Rules: everyone()}}, &http.Client{Transport: down{}}, time.Now, quiet(), nil)
	f.Fuzz(func(t *testing.T, token string) {
		p, err := a.Authenticate(t.Context(), token)
		require.Error(t, err)
		require.Zero(t, p)
		require.Less(t, len(err.Error()), 1500)
		require.False(t, strings.ContainsAny(err.Error(), "\n\x00"), "%q", err)
	})
}

type down struct{}

// RoundTrip implements http.RoundTripper.
func (down) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.EOF }

// Claims of any form neither panic nor match what they do not contain, and their name can be
// logged.
func FuzzClaims(f *testing.F) {
	f.Add(`{"sub":"a","groups":["ops"],"email":"a@example.com","exp":1}`, "ops")
	f.Add(`{"groups":[[{"a":null}]],"iat":-1e400,"aud":{"a":1}}`, "*")
	f.Add(`{"email":"a","email_verified":"no","nbf":9e18}`, "a*a")
	f.Fuzz(func(t *testing.T, content, pattern string) {
		c, err := decode([]byte(content))
		if err != nil {
			return
		}
		require.NotNil(t, c)
		_ = c.check(audience, time.Now())
		if name := c.name(""); name != "" {
			require.True(t, auth.IsName(name))
		}
		require.LessOrEqual(t, len(c.names()), 4096)
		_, found := c.match([]auth.ClaimRule{{Claims: map[string]auth.Patterns{"groups": {auth.Pattern(pattern)}}}})
		if found {
			require.NotEmpty(t, c.texts("groups"))
		}
	})
}
