package oidc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// An issuer that is down delays nothing at the start. Its tokens are rejected with the reason,
// and without asking it each time; when it is back they are accepted within 30 s.
func TestIssuerIsDown(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(refuse)
	synctest.Test(t, func(t *testing.T) {
		var logged testkit.Buffer
		a := p.authenticator(everyone(), &logged)
		discoveries, _ := p.counts()
		require.Zero(t, discoveries, "it is not asked before its first token")
		asked, token := make([]int, 0, 120), p.token(t, nil)
		for range 120 {
			for range 50 {
				rejected(t, a, token, ErrUnavailable)
			}
			discoveries, _ := p.counts()
			asked = append(asked, discoveries)
			time.Sleep(time.Second) // fake clock
		}
		require.Equal(t, []int{1, 2, 2, 3, 3, 3, 3, 4}, asked[:8], "after 1 s, 2 s, 4 s …")
		require.Equal(t, 5+3, asked[119], "and then every 30 s")
		_, err := a.Authenticate(t.Context(), p.token(t, nil))
		require.ErrorContains(t, err, "try again in")
		warning := `level=WARN msg="an issuer of identity tokens cannot be discovered: its tokens are rejected" issuer=https://issuer.example.com error="Get`
		require.Equal(t, asked[119], strings.Count(logged.String(), warning))

		p.set(nil)
		time.Sleep(fetchInterval) // fake clock
		_, err = a.Authenticate(t.Context(), p.token(t, nil))
		require.NoError(t, err)
		require.Contains(t, logged.String(), `level=INFO msg="an issuer of identity tokens was discovered"`)
		p.set(refuse)
		_, err = a.Authenticate(t.Context(), p.token(t, map[string]any{"sub": "another"}))
		require.NoError(t, err, "its keys are known: it need not be reachable any more")
	})
}

// The same holds for keys that cannot be fetched.
func TestKeysAreDown(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			p.serve(w, r)
			return
		}
		http.Error(w, "secret of the issuer", http.StatusInternalServerError)
	})
	synctest.Test(t, func(t *testing.T) {
		var logged testkit.Buffer
		a := p.authenticator(everyone(), &logged)
		_, err := a.Authenticate(t.Context(), p.token(t, nil))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "try again in 1 s")
		require.NotContains(t, err.Error(), "secret")
		require.Contains(t, logged.String(), `level=WARN msg="the keys of an issuer cannot be fetched: its tokens may be rejected"`)
		p.set(nil)
		time.Sleep(firstRetry) // fake clock
		_, err = a.Authenticate(t.Context(), p.token(t, nil))
		require.NoError(t, err)
	})
}

// However many tokens name unknown keys, and whatever else is wrong with them, the keys are
// fetched once in 30 s at most. Tokens with known keys are accepted all the time, and new keys
// at the next fetch.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	old, stranger, renewed := p.keys[0], newKey(t, "stranger"), newKey(t, "renewed")
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		a := New([]auth.Issuer{{URL: p.url, Audience: audience, Rules: everyone()}}, p.client(), time.Now, quiet(), registry)
		_, err := a.Authenticate(t.Context(), p.token(t, nil))
		require.NoError(t, err)
		begin := time.Now()
		for i := range 300 {
			stranger.id = fmt.Sprint("stranger-", i)
			rejected(t, a, stranger.sign(t, p.claims(nil)), ErrSignature)
			synctest.Wait() // or the next attempt may share the result of this one
			rejected(t, a, unsigned(t, `{"alg":"ES256","kid":"first"}`, p.claims(nil)), ErrSignature)
			_, err := a.Authenticate(t.Context(), p.token(t, map[string]any{"sub": strconv.Itoa(i)}))
			require.NoError(t, err)
			time.Sleep(time.Second) // fake clock
		}
		_, fetches := p.counts()
		require.Equal(t, 1+int(time.Since(begin)/fetchInterval)-1, fetches)

		p.set(nil, renewed) // and the old one is no longer there
		_, err = a.Authenticate(t.Context(), renewed.sign(t, p.claims(nil)))
		require.NoError(t, err, "the last fetch was 30 s ago")
		synctest.Wait()
		next := newKey(t, "next")
		p.set(nil, renewed, next)
		token := next.sign(t, p.claims(nil))
		_, err = a.Authenticate(t.Context(), token)
		require.ErrorIs(t, err, ErrSignature)
		require.ErrorContains(t, err, "try again in 30 s")
		synctest.Wait()
		rejected(t, a, old.sign(t, p.claims(map[string]any{"sub": "late"})), ErrSignature)
		time.Sleep(fetchInterval) // fake clock
		_, err = a.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP migcontroller_oidc_fetches_total Requests to issuers in operators.oidc for their configuration and keys, by outcome: ok, failed, or limited if they were not sent because the keys had been fetched less than 30 seconds before.
# TYPE migcontroller_oidc_fetches_total counter
migcontroller_oidc_fetches_total{outcome="failed"} 0
migcontroller_oidc_fetches_total{outcome="limited"} %d
migcontroller_oidc_fetches_total{outcome="ok"} %d
`, 600-9+2, 1+fetches+2))))
	})
}

// While an issuer with known keys is down, unknown keys are not fetched more often either, and
// the error says that the token may be valid.
func TestUnknownKeysWhileDown(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	renewed := newKey(t, "renewed")
	synctest.Test(t, func(t *testing.T) {
		a := p.authenticator(everyone(), io.Discard)
		_, err := a.Authenticate(t.Context(), p.token(t, nil))
		require.NoError(t, err)
		p.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		time.Sleep(fetchInterval) // fake clock
		for i := range 60 {
			_, err := a.Authenticate(t.Context(), renewed.sign(t, p.claims(map[string]any{"sub": strconv.Itoa(i)})))
			require.Error(t, err)
			if i%30 == 0 {
				require.ErrorIs(t, err, ErrUnavailable)
			}
			time.Sleep(time.Second) // fake clock
		}
		_, fetches := p.counts()
		require.Equal(t, 3, fetches)
		_, err = a.Authenticate(t.Context(), p.token(t, map[string]any{"sub": "known"}))
		require.NoError(t, err)
	})
}

// Many first tokens at once cause one discovery and one fetch.
func TestConcurrentFirstTokens(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	a := p.authenticator(everyone(), io.Discard)
	var all sync.WaitGroup
	var accepted atomic.Int64
	for i := range 50 {
		token := p.token(t, map[string]any{"sub": strconv.Itoa(i)})
		all.Go(func() {
			if _, err := a.Authenticate(t.Context(), token); err == nil {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 50, accepted.Load())
	discoveries, fetches := p.counts()
	require.Equal(t, 1, discoveries)
	require.Equal(t, 1, fetches)
}

// A caller that leaves while the issuer is asked does not make that fail for others, who would
// then have to wait for the next attempt.
func TestCallerLeavesDuringFetch(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		a := New([]auth.Issuer{{URL: p.url, Audience: audience, Rules: everyone()}}, &http.Client{Transport: slow{p}}, time.Now, quiet(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := a.Authenticate(ctx, p.token(t, nil))
		require.NoError(t, err)
	})
}

// slow answers after a second, unless the request ends before.
type slow struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Second):
		return s.base.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// An issuer that sends more than it should, slowly, or something else than it should, is
// treated as one that is down.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	huge := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"id_token_signing_alg_values_supported":["ES256"],"jwks_uri":"https://issuer.example.com/keys","padding":"%s"}`, issuerURL, strings.Repeat("x", maxResponse))
	}
	document := func(format string, args ...any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, format, args...)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"huge":     huge,
		"not JSON": document("<html>"),
		"an error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("x", 1000), http.StatusForbidden)
		},
		"another issuer":  document(`{"issuer":"https://other.example.com","jwks_uri":"https://issuer.example.com/keys"}`),
		"no keys":         document(`{"issuer":%q}`, issuerURL),
		"keys of no form": document(`{"issuer":%q,"id_token_signing_alg_values_supported":["ES256"],"jwks_uri":":"}`, issuerURL),
		"plaintext keys":  document(`{"issuer":%q,"id_token_signing_alg_values_supported":["ES256"],"jwks_uri":"http://issuer.example.com/keys"}`, issuerURL),
		"loopback keys":   document(`{"issuer":%q,"id_token_signing_alg_values_supported":["ES256"],"jwks_uri":"http://127.0.0.1/keys"}`, issuerURL),
		"keys in a file":  document(`{"issuer":%q,"id_token_signing_alg_values_supported":["ES256"],"jwks_uri":"file:///etc/passwd"}`, issuerURL),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.set(answer)
			var logged testkit.Buffer
			a := p.authenticator(everyone(), &logged)
			rejected(t, a, p.token(t, nil), ErrUnavailable)
			require.Contains(t, logged.String(), "level=WARN")
			require.Less(t, len(logged.String()), 800, "a log line is short, whatever an issuer sends")
			_, fetches := p.counts()
			require.Zero(t, fetches)
		})
	}
}

// The keys may not be huge either.
func TestHugeKeys(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			p.serve(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"keys":[],"padding":"%s"}`, strings.Repeat("x", maxResponse))
	})
	rejected(t, p.authenticator(everyone(), io.Discard), p.token(t, nil), ErrUnavailable)
}

// serve starts a server of the issuer, and returns a client for it.
func (p *provider) start(t *testing.T, start func(http.Handler) *httptest.Server) *http.Client {
	t.Helper()
	s := start(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return s.Client()
}

// Tokens are verified over TLS, with the certificates that the client trusts, and over plaintext
// for an issuer on this machine.
func TestRealServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(http.Handler) *httptest.Server{"https": httptest.NewTLSServer, "http": httptest.NewServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			client := p.start(t, start)
			defer client.CloseIdleConnections()
			config := []auth.Issuer{{URL: p.url, Audience: audience, Rules: everyone()}}
			_, err := New(config, client, time.Now, quiet(), nil).Authenticate(t.Context(), p.token(t, nil))
			require.NoError(t, err)
			a := New(config, nil, time.Now, quiet(), nil)
			if name == "https" {
				rejected(t, a, p.token(t, nil), ErrUnavailable)
				return
			}
			_, err = a.Authenticate(t.Context(), p.token(t, nil))
			require.NoError(t, err)
		})
	}
}

// Redirects are followed within the host, and there are few of them.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		target   func(p *provider, r *http.Request) string
		accepted bool
	}{
		"within the host": {func(p *provider, r *http.Request) string {
			if strings.HasSuffix(r.URL.Path, "/moved") || strings.HasPrefix(r.URL.Path, "/.well-known/") {
				return ""
			}
			return p.url + r.URL.Path + "/moved"
		}, true},
		"to another host": {func(_ *provider, _ *http.Request) string { return "http://localhost:1/keys" }, false},
		"to another port": {func(_ *provider, _ *http.Request) string { return "http://127.0.0.1:1/keys" }, false},
		"to TLS":          {func(_ *provider, r *http.Request) string { return "https://" + r.Host + r.URL.Path }, false},
		"forever":         {func(p *provider, r *http.Request) string { return p.url + r.URL.Path + "/on" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			client := p.start(t, httptest.NewServer)
			defer client.CloseIdleConnections()
			p.set(func(w http.ResponseWriter, r *http.Request) {
				if target := test.target(p, r); target != "" {
					http.Redirect(w, r, target, http.StatusFound)
					return
				}
				r.URL.Path = strings.TrimSuffix(r.URL.Path, "/moved")
				p.serve(w, r)
			})
			a := New([]auth.Issuer{{URL: p.url, Audience: audience, Rules: everyone()}}, client, time.Now, quiet(), nil)
			_, err := a.Authenticate(t.Context(), p.token(t, nil))
			if test.accepted {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrUnavailable)
			discoveries, fetches := p.counts()
			require.LessOrEqual(t, discoveries+fetches, 1+maxRedirects)
		})
	}
}

// An issuer that does not answer is given up after 5 s.
func TestSilentIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		a := New([]auth.Issuer{{URL: p.url, Audience: audience, Rules: everyone()}}, &http.Client{Transport: silent{}}, time.Now, quiet(), nil)
		begin := time.Now()
		rejected(t, a, p.token(t, nil), ErrUnavailable)
		require.Equal(t, fetchTimeout, time.Since(begin))
		rejected(t, a, p.token(t, nil), ErrUnavailable)
		require.Equal(t, fetchTimeout, time.Since(begin), "the next one does not wait")
	})
}

type silent struct{}

// RoundTrip implements http.RoundTripper.
func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Only https is used, except for issuers on this machine that use http themselves.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	for text, loopback := range map[string]bool{
		"http://localhost": true, "http://127.1.2.3:80/x": true, "http://[::1]:80": true,
		"http://localhost.example.com": false, "http://10.0.0.1": false, "http://127.0.0.1.example.com": false, "http://": false,
	} {
		u, err := url.Parse(text)
		require.NoError(t, err)
		require.Equal(t, loopback, auth.IsLoopback(u), text)
		i := newIssuer(auth.Issuer{URL: text}, silent{}, newMetrics(nil), quiet())
		for _, client := range []*http.Client{i.discovers, i.fetches} {
			f, ok := client.Transport.(fetcher)
			require.True(t, ok)
			require.Equal(t, loopback, f.plaintext)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.0.0.1/keys", http.NoBody)
			_, err := f.RoundTrip(r) //nolint:bodyclose // there is no response
			require.ErrorContains(t, err, "must begin with https")
		}
	}
}
