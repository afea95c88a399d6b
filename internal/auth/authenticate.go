package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"connectrpc.com/authn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// Options configure an Authenticator. Tokens is required.
type Options struct {
	Tokens *Tokens
	// Identity verifies tokens that the controller has not issued; nil for none.
	Identity IdentityVerifier
	// Certificates verifies client certificates; nil for none.
	Certificates CertificateVerifier
	// Exposed is whether other machines can reach an address that serves operators.
	Exposed bool
	// Insecure is whether callers without credentials may do everything in any case.
	Insecure bool
	// Metrics registers the metrics; nil registers none.
	Metrics prometheus.Registerer
	// Rejected is called for each request that is rejected; nil for nothing. It must not block.
	Rejected func(Rejected)
}

// IdentityVerifier verifies identity tokens of OpenID Connect issuers.
type IdentityVerifier interface {
	// Authenticate returns the principal of a token. Its errors are for the caller: those that
	// wrap ErrForbidden or ErrUnavailable, those of ctx, and rejections.
	Authenticate(ctx context.Context, token string) (Principal, error)
}

// CertificateVerifier maps client certificates that crypto/tls has verified to principals.
type CertificateVerifier interface {
	// Authenticate returns the principal of the connection's certificate, and whether it has
	// one. Its errors are for the caller.
	Authenticate(state *tls.ConnectionState) (p Principal, found bool, err error)
}

// Rejected is a request that was rejected.
type Rejected struct {
	// Source is the address of the caller without a port, or its network if that is IPv6.
	Source string
	// By is what is known of the caller; empty unless it was authenticated.
	By     Principal
	Action string
	Err    error
}

// Requirement is what a call requires.
type Requirement struct {
	// Action names the call, such as AdminService/SendCommand.
	Action string
	// Role is the weakest role that may make it.
	Role Role
	// AllPools is whether the principal must not be limited to some pools.
	AllPools bool
}

// The limit of failed attempts of a source.
const (
	failureBurst     = 20
	failurePerSecond = 0.2
	// maxFailedSources is how many sources that have failed lately have a limit of their own,
	// so that their memory is limited. While there are more, all share that of otherSources.
	maxFailedSources = 10_000
	otherSources     = "other"
)

// Authenticator decides who a caller is, and whether it may make a call. It is safe for
// concurrent use.
type Authenticator struct {
	Options

	metrics metrics
	mu      sync.Mutex
	failed  *ratelimit.Buckets[string] // by source
}

// New returns an Authenticator.
func New(o Options) *Authenticator {
	return &Authenticator{
		Options: o, metrics: newMetrics(o.Metrics),
		failed: ratelimit.New[string](ratelimit.NewLimit(failureBurst, failurePerSecond), ratelimit.Limit{}),
	}
}

// Required reports whether callers need credentials.
func (a *Authenticator) Required() bool {
	return !a.Insecure && (a.Exposed || a.Identity != nil || a.Certificates != nil || a.Tokens.Any())
}

type socketKey struct{}

// OnSocket marks requests as received on the control socket.
func OnSocket(ctx context.Context) context.Context { return context.WithValue(ctx, socketKey{}, true) }

// Admit returns the principal of a request that may make the call. It reads only the header
// and the connection. Errors: a *Rejection, a *Forbidden, ErrTooMany.
func (a *Authenticator) Admit(r *http.Request, need Requirement) (Principal, error) {
	p, err := a.authenticate(r)
	if err == nil {
		err = p.may(need)
	}
	if err == nil {
		a.metrics.accepted[p.Method].Inc()
		return p, nil
	}
	rejected := a.metrics.rejected[ReasonOf(err)]
	if rejected == nil { // the caller has left
		return Principal{}, err
	}
	rejected.Inc()
	if a.Rejected != nil {
		a.Rejected(Rejected{Source: sourceOf(r), By: p, Action: need.Action, Err: err})
	}
	return Principal{}, err
}

func (a *Authenticator) authenticate(r *http.Request) (Principal, error) {
	if r.Context().Value(socketKey{}) != nil {
		return Local(), nil
	}
	if len(r.Header.Values("Authorization")) > 0 {
		p, err := a.bearer(r)
		return p, a.limit(r, err)
	}
	if a.Certificates != nil && r.TLS != nil {
		if p, found, err := a.Certificates.Authenticate(r.TLS); found {
			return p, a.limit(r, asRejection(err))
		}
	}
	switch {
	case a.Required():
		return Principal{}, ErrMissing
	case !a.Insecure && forwarded(r.Header):
		return Principal{}, ErrForwarded
	default:
		p := Anyone()
		if !a.Insecure {
			p.Revoked = a.Tokens.First()
		}
		return p, nil
	}
}

// bearer returns the principal of the header Authorization.
func (a *Authenticator) bearer(r *http.Request) (Principal, error) {
	token, ok := authn.BearerToken(r)
	if !ok || token == "" || len(r.Header.Values("Authorization")) > 1 {
		return Principal{}, ErrMalformed
	}
	if a.Identity != nil && !strings.HasPrefix(token, SecretPrefix) {
		p, err := a.Identity.Authenticate(r.Context(), token)
		return p, asRejection(err)
	}
	return a.Tokens.Authenticate(token)
}

// asRejection returns an error of another package as a *Rejection, unless it has a meaning of
// its own.
func asRejection(err error) error {
	for _, own := range []error{ErrForbidden, ErrUnavailable, context.Canceled, context.DeadlineExceeded} {
		if err == nil || errors.Is(err, own) {
			return err
		}
	}
	if _, ok := errors.AsType[*Rejection](err); ok {
		return err
	}
	return &Rejection{Reason: otherReason, Message: err.Error()}
}

// limit returns err, or ErrTooMany if the source has failed too often. It never concerns
// valid credentials, nor those that cannot be checked.
func (a *Authenticator) limit(r *http.Request, err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || ReasonOf(err) == "" { // or the caller has left
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	source := sourceOf(r)
	if a.failed.Len() >= maxFailedSources {
		source = otherSources
	}
	if !a.failed.Spend(source, 0, time.Now()).OK() {
		return ErrTooMany
	}
	return err
}

// forwarded reports whether a request has passed a proxy, as far as it says so.
func forwarded(h http.Header) bool {
	for name := range h {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
			return true
		}
	}
	return false
}

// sourceOf returns the source of a request: its address without a port, or its network.
func sourceOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	source := ratelimit.Source(at.Addr())
	if source.IsSingleIP() {
		return source.Addr().String()
	}
	return source.String()
}

// may returns a *Forbidden unless p may make a call.
func (p Principal) may(need Requirement) error {
	switch {
	case !need.Role.Valid() || !p.Role.Includes(need.Role):
		return &Forbidden{fmt.Sprintf("%s requires the role %s, and %s has %s: ask an admin for a token with that role",
			need.Action, need.Role, p, p.Role)}
	case need.AllPools && !p.Scope.All():
		return &Forbidden{fmt.Sprintf("%s requires access to all pools, and %s is limited to %s: ask an admin for a token without pools",
			need.Action, p, p.Scope)}
	default:
		return nil
	}
}

// String describes the principal, such as: the token "ci".
func (p Principal) String() string {
	switch p.Method {
	case ByToken:
		return fmt.Sprintf("the token %q", p.Name)
	case ByCertificate:
		return fmt.Sprintf("the certificate %q", p.Name)
	default:
		return fmt.Sprintf("%q", p.Name)
	}
}
