package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// request returns a request from a caller with headers.
func request(tb testing.TB, from string, headers ...string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/", http.NoBody)
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

var read = Requirement{Action: "AdminService/GetVM", Role: Viewer}

// Callers need no credentials on loopback until authentication is configured, unless they have
// passed a proxy. The control socket and --insecure-operators always serve.
func TestWhoNeedsCredentials(t *testing.T) {
	t.Parallel()
	used := openTokens(t, newFakeStore())
	_, _, err := used.Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		options  Options
		required bool
	}{
		"loopback":              {Options{}, false},
		"exposed":               {Options{Exposed: true}, true},
		"a token was created":   {Options{Tokens: used}, true},
		"issuers":               {Options{Identity: fakeIdentity{}}, true},
		"client certificates":   {Options{Certificates: fakeCertificates{}}, true},
		"exposed, but insecure": {Options{Exposed: true, Tokens: used, Insecure: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.options.Tokens == nil {
				test.options.Tokens = openTokens(t, newFakeStore())
			}
			a := New(test.options)
			require.Equal(t, test.required, a.Required())
			p, err := a.Admit(request(t, "127.0.0.1:1"), read)
			if test.required {
				require.Equal(t, ErrMissing, err)
			} else {
				require.NoError(t, err)
				require.Equal(t, test.options.Insecure, p.Revoked == nil)
				p.Revoked = nil
				require.Equal(t, Anyone(), p)
			}
			for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP"} {
				_, err := a.Admit(request(t, "127.0.0.1:1", header, "x"), read)
				switch {
				case test.required:
					require.Equal(t, ErrMissing, err)
				case test.options.Insecure:
					require.NoError(t, err)
				default:
					require.Equal(t, ErrForwarded, err, header)
				}
			}
			r := request(t, "@")
			p, err = a.Admit(r.WithContext(OnSocket(r.Context())), Requirement{Role: Admin, AllPools: true})
			require.NoError(t, err)
			require.Equal(t, Socket, p.Method)
		})
	}
}

// The header must be one bearer token. A token counts even where none is needed: a wrong one is
// a mistake that its sender should know of.
func TestHeader(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, newFakeStore())
	_, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Viewer})
	require.NoError(t, err)
	a := New(Options{Tokens: tokens, Insecure: true})
	for _, form := range []string{"Bearer " + secret, "bearer " + secret} {
		p, err := a.Admit(request(t, "192.0.2.1:1", "Authorization", form), read)
		require.NoError(t, err)
		require.Equal(t, "ci", p.Name)
	}
	for form, want := range map[string]error{
		"": ErrMalformed, "Bearer": ErrMalformed, "Bearer ": ErrMalformed, "Basic eDp5": ErrMalformed,
		secret: ErrMalformed, "Bearer  " + secret: ErrUnknown, "Bearer x": ErrUnknown,
	} {
		_, err := New(a.Options).Admit(request(t, "192.0.2.1:1", "Authorization", form), read)
		require.Equal(t, want, err, form)
	}
	_, err = a.Admit(request(t, "192.0.2.1:1", "Authorization", "Bearer "+secret, "Authorization", "Bearer "+secret), read)
	require.Equal(t, ErrMalformed, err)
}

// A source that has failed too often learns nothing more about its guesses, while valid
// credentials from the same address are served, and other sources are not concerned.
func TestGuessing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := openTokens(t, newFakeStore())
		_, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Viewer})
		require.NoError(t, err)
		var seen []Rejected
		a := New(Options{Tokens: tokens, Rejected: func(r Rejected) { seen = append(seen, r) }})
		guess := func(from string) error {
			_, err := a.Admit(request(t, from, "Authorization", "Bearer migc_GUESS"), read)
			return err
		}
		for range failureBurst {
			require.Equal(t, ErrUnknown, guess("192.0.2.1:1"))
		}
		for range 100 {
			require.Equal(t, ErrTooMany, guess("192.0.2.1:2"))
			_, err := a.Admit(request(t, "192.0.2.1:3", "Authorization", "Bearer "+secret), read)
			require.NoError(t, err)
		}
		require.Equal(t, ErrUnknown, guess("192.0.2.2:1"))
		require.Equal(t, ErrUnknown, guess("[2001:db8::1]:1"))
		require.Equal(t, "2001:db8::/64", seen[len(seen)-1].Source)
		require.Len(t, seen, failureBurst+102)
		time.Sleep(5 * time.Second) // fake clock
		require.Equal(t, ErrUnknown, guess("192.0.2.1:1"))
		require.Equal(t, ErrTooMany, guess("192.0.2.1:1"))
	})
}

// identity is an IdentityVerifier with one answer.
type identity struct{ err error }

func (i identity) Authenticate(context.Context, string) (Principal, error) { return Principal{}, i.err }

// Credentials that cannot be checked at the moment are not failed attempts: their callers are
// told to try again, and do.
func TestUncheckedCredentialsAreNotGuesses(t *testing.T) {
	t.Parallel()
	a := New(Options{Tokens: openTokens(t, newFakeStore()), Identity: identity{ErrUnavailable}})
	for range 2 * failureBurst {
		_, err := a.Admit(request(t, "192.0.2.1:1", "Authorization", "Bearer a.b.c"), read)
		require.ErrorIs(t, err, ErrUnavailable)
	}
	_, err := a.Admit(request(t, "192.0.2.1:1", "Authorization", "Bearer migc_GUESS"), read)
	require.Equal(t, ErrUnknown, err)
}

// A principal may do what its role and its pools allow, and learns what it lacks.
func TestRequirements(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		role  Role
		pools []string
		need  Requirement
		lacks string
	}{
		{Viewer, nil, Requirement{Role: Viewer}, ""},
		{Viewer, nil, Requirement{Action: "AdminService/SendCommand", Role: Operator}, `AdminService/SendCommand requires the role operator, and the token "tester" has viewer: ask an admin for a token with that role`},
		{Operator, nil, Requirement{Role: Admin}, "requires the role admin"},
		{Admin, []string{"a"}, Requirement{Role: Admin}, ""},
		{Admin, []string{"a"}, Requirement{Action: "x", Role: Viewer, AllPools: true}, `x requires access to all pools, and the token "tester" is limited to a`},
		{Admin, nil, Requirement{Role: Viewer, AllPools: true}, ""},
		{Admin, nil, Requirement{}, "requires the role"},
		{"root", nil, Requirement{Role: Viewer}, "requires the role"},
	} {
		err := From(by(t, test.role, test.pools...)).may(test.need)
		if test.lacks == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrForbidden)
		require.ErrorContains(t, err, test.lacks)
		require.Equal(t, reasonForbidden, ReasonOf(err))
	}
}

type fakeIdentity struct{}

func (fakeIdentity) Authenticate(_ context.Context, token string) (Principal, error) {
	if token != "jwt" {
		return Principal{}, errors.New("signed by nobody")
	}
	return Principal{Name: "a@example.com", Method: ByOIDC, Role: Viewer, Scope: AllPools()}, nil
}

type fakeCertificates struct{}

func (fakeCertificates) Authenticate(s *tls.ConnectionState) (Principal, bool, error) {
	switch s.ServerName {
	case "none":
		return Principal{}, false, nil
	case "bad":
		return Principal{}, true, errors.New("no rule")
	default:
		return Principal{Name: "cn", Method: ByCertificate, Role: Viewer, Scope: AllPools()}, true, nil
	}
}

// A token in the header decides, and after it the certificate of the connection.
func TestOtherMethods(t *testing.T) {
	t.Parallel()
	a := New(Options{Tokens: openTokens(t, newFakeStore()), Identity: fakeIdentity{}, Certificates: fakeCertificates{}})
	for _, test := range []struct {
		token, certificate string
		method             Method
		reason             string
	}{
		{"jwt", "cn", ByOIDC, ""},
		{"other", "cn", "", otherReason},
		{"migc_x", "cn", "", "unknown"},
		{"", "cn", ByCertificate, ""},
		{"", "bad", "", otherReason},
		{"", "none", "", "missing"},
	} {
		r := request(t, "192.0.2.1:1")
		r.TLS = &tls.ConnectionState{ServerName: test.certificate}
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		p, err := a.Admit(r, read)
		require.Equal(t, test.method, p.Method)
		require.Equal(t, test.reason, ReasonOf(err))
	}
}

// A long call ends when its credentials do, and otherwise with its own context.
func TestWhileValid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		revoked := make(chan struct{})
		for _, p := range []Principal{
			{ExpiresAt: time.Now().Add(time.Minute)},
			{Revoked: revoked},
			{Revoked: revoked, ExpiresAt: time.Now().Add(time.Hour)},
			{Holds: holdsTimes(20), ExpiresAt: time.Now().Add(time.Hour)},
		} {
			ctx, cancel := WhileValid(With(t.Context(), p))
			t.Cleanup(cancel)
			time.Sleep(30 * time.Second) // fake clock
			require.NoError(t, ctx.Err())
			if p.Revoked != nil {
				revoked <- struct{}{}
			}
			began := time.Now()
			<-ctx.Done()
			require.Equal(t, ErrEnded, context.Cause(ctx))
			require.LessOrEqual(t, time.Since(began), 30*time.Second)
		}
		ctx, cancel := WhileValid(With(t.Context(), Anyone()))
		cancel()
		require.Equal(t, context.Canceled, context.Cause(ctx))
	})
}

// holdsTimes returns a Principal.Holds that is true n times.
func holdsTimes(n int) func() bool {
	return func() bool {
		n--
		return n >= 0
	}
}

// The long calls of callers who needed no credentials end when the first token is created.
func TestFirstTokenEndsOpenCalls(t *testing.T) {
	t.Parallel()
	for _, had := range []bool{false, true} {
		s := newFakeStore()
		s.had = had
		tokens := openTokens(t, s)
		p, err := New(Options{Tokens: tokens}).Admit(request(t, "127.0.0.1:1"), read)
		if had {
			require.Equal(t, ErrMissing, err)
			continue
		}
		require.NoError(t, err)
		ctx, cancel := WhileValid(With(t.Context(), p))
		t.Cleanup(cancel)
		require.NoError(t, ctx.Err())
		for range 2 {
			_, _, err = tokens.Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
			require.NoError(t, err)
		}
		require.Eventually(t, func() bool { return ctx.Err() != nil }, 10*time.Second, time.Millisecond)
		require.Equal(t, ErrEnded, context.Cause(ctx))
	}
}

// What cannot be checked is not a failure, and a caller who has left is not a rejected one.
func TestNotFailures(t *testing.T) {
	t.Parallel()
	var seen []Rejected
	a := New(Options{
		Tokens: openTokens(t, newFakeStore()), Identity: unavailable{}, Rejected: func(r Rejected) { seen = append(seen, r) },
	})
	for range 2 * failureBurst {
		_, err := a.Admit(request(t, "192.0.2.1:1", "Authorization", "Bearer jwt"), read)
		require.ErrorIs(t, err, ErrUnavailable)
	}
	require.Len(t, seen, 2*failureBurst)
	_, err := a.Admit(request(t, "192.0.2.1:1", "Authorization", "Bearer slow"), read)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, seen, 2*failureBurst)
	require.Zero(t, a.failed.Len())
}

// unavailable is an issuer that cannot be reached, or only slowly.
type unavailable struct{}

func (unavailable) Authenticate(_ context.Context, token string) (Principal, error) {
	if token == "slow" {
		return Principal{}, context.Canceled
	}
	return Principal{}, fmt.Errorf("down: %w", ErrUnavailable)
}

// However many sources fail, the memory for them is limited, and valid credentials are served.
func TestManySourcesOfFailures(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, newFakeStore())
	_, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Viewer})
	require.NoError(t, err)
	a := New(Options{Tokens: tokens})
	for n := range 2 * maxFailedSources {
		_, err = a.Admit(request(t, fmt.Sprintf("10.%d.%d.%d:1", n>>16, n>>8&255, n&255), "Authorization", "Bearer x"), read)
		require.Error(t, err)
	}
	require.Equal(t, ErrTooMany, err)
	require.LessOrEqual(t, a.failed.Len(), maxFailedSources+1)
	_, err = a.Admit(request(t, "10.0.0.1:1", "Authorization", "Bearer "+secret), read)
	require.NoError(t, err)
}

// Whatever a caller sends, it is not admitted without valid credentials, and the reason does not
// depend on what it sent.
func FuzzAdmit(f *testing.F) {
	f.Add("Authorization", "Bearer migc_ABC", "", "", "127.0.0.1:1")
	f.Add("Authorization", "bearer \x00", "Authorization", "Basic eDp5", "[fe80::1%eth0]:1")
	f.Add("X-Forwarded-For", "10.0.0.1", "Via", "", "@")
	f.Add("authorization", "Bearer jwt", "Forwarded", "for=x", "")
	tokens := openTokens(f, newFakeStore())
	_, _, err := tokens.Create(by(f, Admin), TokenRequest{Name: "ci", Role: Viewer})
	require.NoError(f, err)
	var last Rejected
	a := New(Options{Tokens: tokens, Certificates: fakeCertificates{}, Rejected: func(r Rejected) { last = r }})
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, from string) {
		r := request(t, from)
		r.Header[http.CanonicalHeaderKey(name1)] = []string{value1}
		r.Header[http.CanonicalHeaderKey(name2)] = append(r.Header[http.CanonicalHeaderKey(name2)], value2)
		p, err := a.Admit(r, read)
		require.Error(t, err)
		require.Equal(t, Principal{}, p)
		require.Contains(t, Reasons, ReasonOf(err))
		require.Equal(t, err, last.Err)
		require.Contains(t, []error{ErrMissing, ErrMalformed, ErrUnknown, ErrTooMany}, err)
	})
}

// A scope without pools has nothing, not everything.
func TestScope(t *testing.T) {
	t.Parallel()
	require.False(t, Scope{}.Has("a") || Scope{}.Has("") || OnlyPools("").Has(""))
	require.True(t, Scope{}.Within(OnlyPools("a")) && !AllPools().Within(OnlyPools("a")) && OnlyPools("a").Within(AllPools()))
	require.Equal(t, "a,b", OnlyPools("b", "a", "b").String())
	require.Equal(t, "*", AllPools().String())
	require.Equal(t, Principal{}, From(t.Context()))
}
