package auth

import (
	"errors"
	"slices"
)

// Rejection is why a caller is not authenticated. Its message is for the caller: it says what
// is wrong and how to mend it, and contains no secret.
type Rejection struct { //nolint:errname // it is what callers get, and not only an error
	// Reason is one of Reasons. Only ErrEnded has another one: no admission returns it.
	Reason, Message string
}

// Error returns the message.
func (r *Rejection) Error() string { return r.Message }

// The rejections.
var (
	// ErrMissing occurs when a caller sends no credentials and needs some.
	ErrMissing = &Rejection{"missing", "credentials are required: send a token in the header \"Authorization: Bearer TOKEN\"; " +
		"an admin creates one with \"migctl token create\", and so does \"controller token create\" on the controller's machine"}
	// ErrMalformed occurs when the header is not one of a bearer token.
	ErrMalformed = &Rejection{"malformed", "the header Authorization must be given once, as \"Bearer\", a space and a token"}
	// ErrForwarded occurs when a request without credentials has passed a proxy.
	ErrForwarded = &Rejection{"forwarded", "credentials are required for requests that pass a proxy, as this one did by its headers: " +
		"without credentials the controller serves only callers on its own machine; " +
		"create a token with \"controller token create\" there, and send it in the header \"Authorization: Bearer TOKEN\""}
	// ErrUnknown occurs for a token that was not issued here, or ended long ago.
	ErrUnknown = &Rejection{"unknown", "this controller does not know the token: it may be of another controller, mistyped, or have ended long ago"}
	// ErrRevoked occurs for a token that was revoked.
	ErrRevoked = &Rejection{"revoked", "the token was revoked; an admin can create another one with \"migctl token create\""}
	// ErrExpired occurs for credentials whose time is over.
	ErrExpired = &Rejection{"expired", "the token has expired; an admin can create another one with \"migctl token create\""}
	// ErrEnded occurs when credentials expire or are revoked during a call.
	ErrEnded = &Rejection{"ended", "the credentials have expired or were revoked during the call, or are required now, since the first token was created"}
)

// otherReason is the reason of rejections by an issuer's or a certificate's rules.
const otherReason = "not_accepted"

// Reasons are the reasons of rejections, and of refusals: a lack of a role or a pool, and too
// many failures.
var Reasons = []string{
	"missing", "malformed", "forwarded", "unknown", "revoked", "expired", otherReason, reasonForbidden, reasonTooMany, reasonUnavailable,
}

const (
	reasonForbidden   = "forbidden"
	reasonTooMany     = "too_many"
	reasonUnavailable = "unavailable"
)

// ErrTooMany occurs when credentials are rejected and their source has failed too often.
var ErrTooMany = errors.New("too many failed attempts from this address; valid credentials are still accepted")

// ErrUnavailable occurs when credentials cannot be checked at the moment: their caller can try
// again.
var ErrUnavailable = errors.New("the credentials cannot be checked at the moment")

// ErrTooManyTokens occurs when there are as many tokens as are kept.
var ErrTooManyTokens = errors.New("there are 10000 tokens, which is the limit: revoke some, which are removed 30 days later, or let tools share one")

// ErrForbidden is wrapped by every *Forbidden, and by the errors for identities that no rule
// matches.
var ErrForbidden = errors.New("ask an admin for access")

// Forbidden is what an authenticated principal lacks for a call.
type Forbidden struct{ Message string } //nolint:errname // as Rejection

// Error returns the message.
func (f *Forbidden) Error() string { return f.Message }

// Unwrap returns ErrForbidden.
func (*Forbidden) Unwrap() error { return ErrForbidden }

// ReasonOf returns the reason of a rejection or a refusal; empty for other errors.
func ReasonOf(err error) string {
	if r, ok := errors.AsType[*Rejection](err); ok {
		if slices.Contains(Reasons, r.Reason) {
			return r.Reason
		}
		return otherReason
	}
	switch {
	case errors.Is(err, ErrForbidden):
		return reasonForbidden
	case errors.Is(err, ErrTooMany):
		return reasonTooMany
	case errors.Is(err, ErrUnavailable):
		return reasonUnavailable
	default:
		return ""
	}
}
