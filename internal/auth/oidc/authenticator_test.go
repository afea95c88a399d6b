package oidc

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// A valid token gets the role and the pools of its rule, until it expires.
func TestValidToken(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator([]auth.ClaimRule{
		{Claims: map[string]auth.Patterns{"sub": {"id-2"}}, Grant: auth.Grant{Role: auth.Admin}},
		{Claims: map[string]auth.Patterns{"email": {"*@example.com"}}, Grant: auth.Grant{Role: auth.Operator, Pools: []string{"linux"}}},
		{Claims: map[string]auth.Patterns{"sub": {"*"}}, Grant: auth.Grant{Role: auth.Viewer}},
	}, io.Discard)
	ends := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	who, err := a.Authenticate(t.Context(), p.token(t, map[string]any{"exp": ends.Unix()}))
	require.NoError(t, err)
	require.Equal(t, auth.Principal{
		Name: "ann@example.com", Method: auth.ByOIDC, Role: auth.Operator, Scope: auth.OnlyPools("linux"), ExpiresAt: ends.Add(Skew),
	}, who)
	who, err = a.Authenticate(t.Context(), p.token(t, map[string]any{"sub": "id-2", "email": nil, "aud": []string{"other", audience}}))
	require.NoError(t, err)
	require.Equal(t, auth.Admin, who.Role, "the first rule that matches decides")
	require.Equal(t, auth.AllPools(), who.Scope)
	require.Equal(t, "id-2", who.Name)
}

// Tokens that are not meant for this controller, at this time, are rejected without a request
// to their issuer, and the error says why.
func TestInvalidClaims(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		claims map[string]any
		reason error
	}{
		"another audience":           {map[string]any{"aud": "another"}, ErrAudience},
		"several other audiences":    {map[string]any{"aud": []string{"a", "b"}}, ErrAudience},
		"part of the audience":       {map[string]any{"aud": audience[:4]}, ErrAudience},
		"no audience":                {map[string]any{"aud": nil}, ErrAudience},
		"another issuer":             {map[string]any{"iss": "https://other.example.com"}, ErrIssuer},
		"a slash more":               {map[string]any{"iss": issuerURL + "/"}, ErrIssuer},
		"no issuer":                  {map[string]any{"iss": nil}, ErrIssuer},
		"an issuer that is a list":   {map[string]any{"iss": []string{issuerURL}}, ErrIssuer},
		"expired":                    {map[string]any{"exp": now - 61}, ErrExpired},
		"without expiry":             {map[string]any{"exp": nil}, ErrMalformed},
		"an expiry that is a text":   {map[string]any{"exp": "tomorrow"}, ErrMalformed},
		"an expiry after all time":   {map[string]any{"exp": 1e300}, ErrMalformed},
		"an expiry before all time":  {map[string]any{"exp": -1}, ErrMalformed},
		"not yet valid":              {map[string]any{"nbf": now + 90}, ErrNotYetValid},
		"issued in the future":       {map[string]any{"iat": now + 90}, ErrNotYetValid},
		"an iat that is not a time":  {map[string]any{"iat": true}, ErrMalformed},
		"an nbf that is not a time":  {map[string]any{"nbf": []int{1}}, ErrMalformed},
		"all of it, issuer included": {map[string]any{"iss": "x", "aud": "x", "exp": 1}, ErrIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejected(t, a, p.token(t, test.claims), test.reason)
		})
	}
	t.Cleanup(func() {
		discoveries, fetches := p.counts()
		require.Zero(t, discoveries)
		require.Zero(t, fetches)
	})
}

// The claims are checked again after the signature: it takes time, and what was parsed before is
// not what was verified.
func TestVerifiedClaimsAreChecked(t *testing.T) {
	t.Parallel()
	i := newProvider(t).authenticator(everyone(), io.Discard).issuers[issuerURL]
	now := time.Now()
	for content, reason := range map[string]error{
		`{"aud":"mig-controller","sub":"a","exp":1}`:                    ErrExpired,
		`{"aud":"another","sub":"a","exp":4102444800}`:                  ErrAudience,
		`{"aud":"mig-controller","sub":"a"}`:                            ErrMalformed,
		`{"aud":"mig-controller","sub":"a","exp":4102444800,"iat":4e9}`: ErrNotYetValid,
		`{"aud":"mig-controller","sub":"a","exp":4102444800}`:           nil,
	} {
		_, err := i.principal(decoded(t, content), now)
		require.ErrorIs(t, err, reason)
	}
}

// The clocks of an issuer and the controller may differ by a minute, in either direction.
func TestSkewedClocks(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	now := time.Now().Truncate(time.Second)
	a.now = func() time.Time { return now }
	for _, claims := range []map[string]any{
		{"exp": now.Unix() - 59},
		{"nbf": now.Unix() + 60},
		{"iat": now.Unix() + 60},
		{"exp": float64(now.Unix()) + 0.5},
	} {
		_, err := a.Authenticate(t.Context(), p.token(t, claims))
		require.NoError(t, err, "%v", claims)
	}
	rejected(t, a, p.token(t, map[string]any{"exp": now.Unix() - 60}), ErrExpired)
	rejected(t, a, p.token(t, map[string]any{"nbf": now.Unix() + 61}), ErrNotYetValid)
	rejected(t, a, p.token(t, map[string]any{"iat": now.Unix() + 61}), ErrNotYetValid)
}

// unsigned returns a token with any header, and a signature that is not one.
func unsigned(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	content, err := json.Marshal(claims)
	require.NoError(t, err)
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(header)) + "." + part(content) + "." + part([]byte("signature"))
}

// Only public-key algorithms are accepted, whatever the issuer's configuration lists: neither
// tokens without a signature nor ones that are signed with what everybody knows, the public key.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p := newProvider(t)
	p.keys = []key{{private, "first", "RS256"}}
	a := p.authenticator(everyone(), io.Discard)
	_, err = a.Authenticate(t.Context(), p.token(t, nil))
	require.NoError(t, err)

	for _, alg := range []string{"none", "None", "", "HS256", "HS384", "HS512", "RSA-OAEP", "dir"} {
		rejected(t, a, unsigned(t, `{"alg":"`+alg+`","kid":"first"}`, p.claims(nil)), ErrAlgorithm)
	}
	rejected(t, a, unsigned(t, `{"alg":["RS256"],"kid":"first"}`, p.claims(nil)), ErrAlgorithm)
	rejected(t, a, unsigned(t, `{"kid":"first"}`, p.claims(nil)), ErrAlgorithm)
	unprotected := unsigned(t, `{"alg":"none"}`, p.claims(nil))
	rejected(t, a, unprotected[:strings.LastIndex(unprotected, ".")+1], ErrMalformed)

	public := x509.MarshalPKCS1PublicKey(&private.PublicKey)
	pkix, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	require.NoError(t, err)
	content, err := json.Marshal(p.claims(nil))
	require.NoError(t, err)
	for _, secret := range [][]byte{
		public, pkix,
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: public}),
	} {
		token := oidctest.SignIDToken(secret, "first", "HS256", string(content))
		rejected(t, a, token, ErrAlgorithm)
		// Past the cheap check, package go-oidc rejects it too.
		_, err := a.issuers[issuerURL].verify(t.Context(), token)
		require.ErrorIs(t, err, ErrSignature)
	}
	_, err = a.issuers[issuerURL].verify(t.Context(), unprotected)
	require.ErrorIs(t, err, ErrSignature)
}

// A token with a changed part, or of another key, is rejected.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	parts := strings.Split(p.token(t, nil), ".")
	other := strings.Split(p.token(t, map[string]any{"sub": "root"}), ".")
	rejected(t, a, strings.Join([]string{parts[0], other[1], parts[2]}, "."), ErrSignature)
	rejected(t, a, unsigned(t, `{"alg":"ES256","kid":"first"}`, p.claims(nil)), ErrSignature)
	rejected(t, a, unsigned(t, `{"alg":"RS256","kid":"first"}`, p.claims(nil)), ErrSignature)
	rejected(t, a, newKey(t, "first").sign(t, p.claims(nil)), ErrSignature)
	rejected(t, a, newKey(t, "").sign(t, p.claims(nil)), ErrSignature)
	_, err := a.Authenticate(t.Context(), strings.Join(parts, "."))
	require.NoError(t, err)
}

// What is not a token at all is rejected, whatever its size.
func TestMalformedTokens(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	part := base64.RawURLEncoding.EncodeToString
	head, body := part([]byte(`{"alg":"ES256"}`)), part([]byte(`{}`))
	for _, token := range []string{
		"", ".", "..", "a.b", "a.b.c", "a.b.c.d", "....", head + "." + body, head + "." + body + ".", head + "..x",
		head + ".%%.x", "%%." + body + ".x", part([]byte(`[]`)) + "." + body + ".x", part([]byte(`null`)) + "." + body + ".x",
		head + "." + part([]byte(`null`)) + ".x", head + "." + part([]byte(`{}{}`)) + ".x", head + "." + part([]byte(`{`)) + ".x",
		head + "." + part([]byte(`"text"`)) + ".x", `{"payload":"e30","signatures":[]}`,
		p.token(t, map[string]any{"padding": strings.Repeat("x", MaxToken)}),
		strings.Repeat("x", 1<<20), strings.Repeat(".", MaxToken),
	} {
		rejected(t, a, token, ErrMalformed)
	}
	large := p.token(t, map[string]any{"padding": strings.Repeat("x", MaxToken/2)})
	_, err := a.Authenticate(t.Context(), large)
	require.NoError(t, err)
}

// A valid token that no rule matches is rejected with its name and the names of its claims, but
// not their values.
func TestNoRuleMatches(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator([]auth.ClaimRule{
		{Claims: map[string]auth.Patterns{"groups": {"ops"}}, Grant: auth.Grant{Role: auth.Admin}},
		{Claims: map[string]auth.Patterns{}, Grant: auth.Grant{Role: auth.Admin}},
	}, io.Discard)
	token := p.token(t, map[string]any{"groups": []string{"payroll-42"}, "bad\nname": 1})
	rejected(t, a, token, ErrUnmatched)
	_, err := a.Authenticate(t.Context(), token)
	require.ErrorContains(t, err, `"ann@example.com"`)
	require.ErrorContains(t, err, "the claims aud, ?, email, email_verified, exp, groups, iat, iss, sub")
	require.NotContains(t, err.Error(), "payroll")

	many := map[string]any{}
	for i := range 200 {
		many[fmt.Sprintf("claim-%d", i)] = i
	}
	_, err = a.Authenticate(t.Context(), p.token(t, many))
	require.ErrorIs(t, err, ErrUnmatched)
	require.Less(t, len(err.Error()), 1000)
}

// A token without a usable name is rejected: the name is that of the principal in the audit.
func TestNames(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	for _, test := range []struct {
		claim  string
		claims map[string]any
		want   string
	}{
		{"", nil, "ann@example.com"},
		{"", map[string]any{"email": nil}, "id-1"},
		{"", map[string]any{"email_verified": nil}, "ann@example.com"},
		{"", map[string]any{"email_verified": "true"}, "ann@example.com"},
		{"", map[string]any{"email_verified": false}, "id-1"},
		{"", map[string]any{"email_verified": "false"}, "id-1"},
		{"", map[string]any{"email": []string{"a", "b"}}, "id-1"},
		{"sub", nil, "id-1"},
		{"preferred_username", map[string]any{"preferred_username": "ann"}, "ann"},
		{"preferred_username", nil, "id-1"},
		{"preferred_username", map[string]any{"preferred_username": "ann\nlevel=INFO"}, "id-1"},
		{"", map[string]any{"email": nil, "sub": nil}, ""},
		{"", map[string]any{"email": nil, "sub": "a\x00b"}, ""},
		{"", map[string]any{"email": strings.Repeat("x", 300), "sub": ""}, ""},
	} {
		a := New([]auth.Issuer{{URL: p.url, Audience: audience, NameClaim: test.claim, Rules: []auth.ClaimRule{
			{Claims: map[string]auth.Patterns{"aud": {"*"}}, Grant: auth.Grant{Role: auth.Viewer}},
		}}}, p.client(), time.Now, quiet(), nil)
		token := p.token(t, test.claims)
		if test.want == "" {
			rejected(t, a, token, ErrMalformed)
			continue
		}
		who, err := a.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, test.want, who.Name, "%q %v", test.claim, test.claims)
	}
}

// A verified token costs no signature check until it expires, and then it is rejected.
func TestVerifiedTokensAreRemembered(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		a := p.authenticator(everyone(), io.Discard)
		token := p.token(t, nil)
		first, err := a.Authenticate(t.Context(), token)
		require.NoError(t, err)
		a.issuers[issuerURL].verifier.Store(nil) // nothing could be verified now
		p.set(refuse)
		second, err := a.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, first, second)
		time.Sleep(time.Hour + Skew - time.Nanosecond) // fake clock
		_, err = a.Authenticate(t.Context(), token)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond) // fake clock
		rejected(t, a, token, ErrExpired)
	})
}

// The memory for verified tokens is bounded.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c, now := newCache(), time.Now()
	for i := range 3 * maxCached {
		ends := now.Add(time.Hour)
		if i%2 == 0 {
			ends = now
		}
		c.put(hashOf(strconv.Itoa(i)), auth.Principal{Name: "x", ExpiresAt: ends}, now)
		require.LessOrEqual(t, len(c.known), maxCached)
	}
	_, known := c.get(hashOf(strconv.Itoa(3*maxCached-1)), now)
	require.True(t, known, "the newest is kept")
	c.drop(now)
	for _, p := range c.known {
		require.True(t, p.ExpiresAt.After(now), "those that have expired are dropped first")
	}
}

// Each issuer has its own keys, audience and rules: a token of one does not pass for another.
func TestSeveralIssuers(t *testing.T) {
	t.Parallel()
	one, two := newProvider(t), newProvider(t)
	two.url = "https://two.example.com"
	config := func(p *provider, role auth.Role) auth.Issuer {
		return auth.Issuer{URL: p.url, Audience: audience, Rules: []auth.ClaimRule{
			{Claims: map[string]auth.Patterns{"sub": {"*"}}, Grant: auth.Grant{Role: role}},
		}}
	}
	a := New([]auth.Issuer{config(one, auth.Viewer), config(two, auth.Admin)}, clientOf(one, two), time.Now, quiet(), nil)
	who, err := a.Authenticate(t.Context(), one.token(t, nil))
	require.NoError(t, err)
	require.Equal(t, auth.Viewer, who.Role)
	who, err = a.Authenticate(t.Context(), two.token(t, nil))
	require.NoError(t, err)
	require.Equal(t, auth.Admin, who.Role)
	rejected(t, a, one.token(t, map[string]any{"iss": two.url}), ErrSignature)
	rejected(t, New(nil, nil, time.Now, quiet(), nil), one.token(t, nil), ErrIssuer)
}

// A caller that has left is not waited for.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	a.issuers[issuerURL].turn <- struct{}{} // another one is discovering the issuer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Authenticate(ctx, p.token(t, nil))
	require.ErrorIs(t, err, context.Canceled)
}

// Tokens that wait for an issuer are bounded.
func TestWaitingTokensAreBounded(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	for range maxVerifying {
		a.issuers[issuerURL].places <- struct{}{}
	}
	rejected(t, a, p.token(t, nil), ErrUnavailable)
	<-a.issuers[issuerURL].places
	_, err := a.Authenticate(t.Context(), p.token(t, nil))
	require.NoError(t, err)
}

// BenchmarkAuthenticate measures a token that was accepted before.
func BenchmarkAuthenticate(b *testing.B) {
	p := newProvider(b)
	a, token := p.authenticator(everyone(), io.Discard), p.token(b, nil)
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
