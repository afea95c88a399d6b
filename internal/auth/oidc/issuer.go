package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// The log keys of this package.
const (
	issuerKey = "issuer"
	retryKey  = "retry_in"
)

// maxVerifying is how many tokens of an issuer are verified at a time, including those that wait
// for it to answer.
const maxVerifying = 256

// issuer verifies the tokens of one issuer.
type issuer struct {
	auth.Issuer

	discovers *http.Client
	fetches   *http.Client
	// discovery limits attempts to discover the issuer, and keys the fetches of its keys.
	discovery, keys *gate
	// verifier is nil until the issuer is discovered. turn has a place for the one who does it.
	verifier atomic.Pointer[oidc.IDTokenVerifier]
	turn     chan struct{}
	// places are those of the tokens that are being verified.
	places chan struct{}

	log     *slog.Logger
	limiter *loglimit.Limiter
}

func newIssuer(config auth.Issuer, base http.RoundTripper, m metrics, log *slog.Logger) *issuer {
	i := &issuer{
		Issuer: config, discovery: new(gate), keys: new(gate),
		turn: make(chan struct{}, 1), places: make(chan struct{}, maxVerifying),
		log: log, limiter: new(loglimit.Limiter),
	}
	u, err := url.Parse(config.URL)
	f := fetcher{base: base, plaintext: err == nil && u.Scheme == "http" && auth.IsLoopback(u), metrics: m}
	i.discovers = f.client()
	f.limit = i.keys
	i.fetches = f.client()
	return i
}

// verify returns the claims of a token that a key of the issuer has signed. It may have to ask
// the issuer, which takes 10 s at most, also if ctx ends earlier: callers that do not wait must
// not be able to cause failures for others.
func (i *issuer) verify(ctx context.Context, token string) (claims, error) {
	select {
	case i.places <- struct{}{}:
		defer func() { <-i.places }()
	default:
		return nil, fmt.Errorf("%w, because too many tokens are waiting for it; try again", ErrUnavailable)
	}
	verifier, err := i.discovered(ctx)
	if err != nil {
		return nil, err
	}
	try := new(attempt)
	verified, err := verifier.Verify(context.WithValue(context.WithoutCancel(ctx), attemptKey{}, try), token)
	if err != nil {
		return nil, i.explain(try.err)
	}
	var content rawClaims
	if err := verified.Claims(&content); err != nil {
		return nil, fmt.Errorf("%w: its claims must be a JSON object", ErrMalformed)
	}
	return content.claims, nil
}

// rawClaims decodes claims in the way of this package.
type rawClaims struct{ claims claims }

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawClaims) UnmarshalJSON(content []byte) (err error) {
	r.claims, err = decode(content)
	return err
}

// explain returns the reason why a signature could not be verified. err is that of the keys.
func (i *issuer) explain(err error) error {
	early, limited := errors.AsType[*tooSoonError](err)
	switch {
	case limited:
		return fmt.Errorf("%w; if the issuer has changed its keys, try again in %s", ErrSignature, seconds(early.wait))
	case err != nil && errors.Unwrap(err) != nil: // only errors of fetches are wrapped
		wait := i.keys.wait(time.Now())
		i.warn("the keys of an issuer cannot be fetched: its tokens may be rejected", err, wait)
		return fmt.Errorf("%w; try again in %s", ErrUnavailable, seconds(wait))
	default:
		return ErrSignature
	}
}

// discovered returns the verifier. It discovers the issuer if that has not succeeded yet, and
// the last attempt was some time ago.
func (i *issuer) discovered(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	if v := i.verifier.Load(); v != nil {
		return v, nil
	}
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if v := i.verifier.Load(); v != nil {
		return v, nil
	}
	wait := i.discovery.enter(time.Now())
	if wait == 0 {
		v, err := i.discover(context.WithoutCancel(ctx))
		i.discovery.done(err == nil, time.Now())
		if err == nil {
			i.verifier.Store(v)
			i.log.Info("an issuer of identity tokens was discovered", issuerKey, i.URL)
			return v, nil
		}
		wait = i.discovery.wait(time.Now())
		i.warn("an issuer of identity tokens cannot be discovered: its tokens are rejected", err, wait)
	}
	return nil, fmt.Errorf("%w; try again in %s", ErrUnavailable, seconds(wait))
}

// discover asks the issuer for its configuration.
func (i *issuer) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.discovers), i.URL)
	if err != nil {
		return nil, err
	}
	var found struct {
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&found); err != nil {
		return nil, err
	}
	if found.Keys == "" {
		return nil, errors.New("its configuration has no jwks_uri")
	}
	accepted := slices.DeleteFunc(found.Algorithms, func(a string) bool { return !slices.Contains(algorithms, a) })
	keys := recordingKeys{oidc.NewRemoteKeySet(oidc.ClientContext(ctx, i.fetches), found.Keys)}
	return oidc.NewVerifier(i.URL, keys, &oidc.Config{
		ClientID: i.Audience, SupportedSigningAlgs: accepted,
		SkipExpiryCheck: true, // it allows no skew; claims.check does
	}), nil
}

// warn logs, at a limited rate, that the issuer failed. A response of an issuer can be long.
func (i *issuer) warn(message string, err error, wait time.Duration) {
	i.limiter.Limited(i.log, message, i.URL, time.Now()).
		Warn(message, issuerKey, i.URL, logkey.Error, fmt.Sprintf("%.300s", err.Error()), retryKey, seconds(wait)) //nolint:sloglint // the callers have constants
}

// seconds returns a time for people, rounded up.
func seconds(wait time.Duration) string {
	return fmt.Sprintf("%d s", max(1, int(math.Ceil(wait.Seconds()))))
}

// attempt is the verification of one token. It keeps the error of the keys, which package
// go-oidc turns into text.
type attempt struct{ err error }

type attemptKey struct{}

// recordingKeys record their errors in the attempt of the context.
type recordingKeys struct{ oidc.KeySet }

// VerifySignature implements oidc.KeySet.
func (k recordingKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	if try, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		try.err = err
	}
	return payload, err
}
