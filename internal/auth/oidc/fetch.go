package oidc

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
)

const (
	// maxResponse is the maximum size in bytes of what an issuer returns.
	maxResponse = 256 << 10
	// fetchTimeout limits one request to an issuer, including its redirects and its response.
	fetchTimeout = 5 * time.Second
	// maxRedirects is how many redirects are followed, within the same host.
	maxRedirects = 3
)

// newTransport returns the transport for requests to issuers. They are too rare for connections
// to be kept.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		TLSHandshakeTimeout: fetchTimeout, MaxResponseHeaderBytes: 64 << 10,
	}
}

// fetcher is the transport of requests to an issuer. It limits the size of responses and how
// often the keys are fetched, whatever package go-oidc attempts.
type fetcher struct {
	base http.RoundTripper
	// plaintext allows http to loopback addresses, for an issuer that uses it itself.
	plaintext bool
	// limit applies to each fetch; nil for none.
	limit   *gate
	metrics metrics
}

// client returns a client with limits on time and redirects.
func (f fetcher) client() *http.Client {
	return &http.Client{Transport: f, Timeout: fetchTimeout, CheckRedirect: stayOnHost}
}

func stayOnHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case r.URL.Scheme != first.Scheme || r.URL.Host != first.Host:
		return errors.New("redirects to another host are not followed")
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	default:
		return nil
	}
}

// tooSoonError means that the keys were fetched a short time ago.
type tooSoonError struct{ wait time.Duration }

// Error implements error.
func (e *tooSoonError) Error() string { return "the keys were fetched a short time ago" }

// RoundTrip implements http.RoundTripper.
func (f fetcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && (!f.plaintext || !auth.IsLoopback(r.URL)) {
		return nil, fmt.Errorf("%.200q must begin with https", r.URL.Redacted())
	}
	redirected := r.Response != nil // the same fetch
	if f.limit != nil && !redirected {
		if wait := f.limit.enter(time.Now()); wait > 0 {
			f.metrics.limited.Inc()
			return nil, &tooSoonError{wait}
		}
	}
	response, err := f.base.RoundTrip(r)
	ok := err == nil && response.StatusCode < http.StatusBadRequest
	if f.limit != nil {
		f.limit.done(ok, time.Now())
	}
	f.metrics.count(ok)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxResponse)
	return response, nil
}
