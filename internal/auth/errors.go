package auth

import "errors"

// The reasons why credentials are rejected. Their texts are for the caller: they say what is
// wrong and how to mend it, and contain no secret.
var (
	// ErrMissing occurs when a caller sends no credentials and needs some.
	ErrMissing = errors.New("credentials are required: send a token in the header \"Authorization: Bearer …\"; " +
		"an admin creates one with \"migctl token create\", and on the controller's machine \"controller token create\" always works")
	// ErrMalformed occurs when the header is not one of a bearer token.
	ErrMalformed = errors.New("the header Authorization must be \"Bearer\", a space and a token")
	// ErrUnknown occurs for a token that was never issued here, or was revoked long ago.
	ErrUnknown = errors.New("the token is not known to this controller: it may be another controller's, or it was revoked")
	// ErrRevoked occurs for a token that was revoked.
	ErrRevoked = errors.New("the token was revoked; an admin can create another one")
	// ErrExpired occurs for credentials whose time is over.
	ErrExpired = errors.New("the credentials have expired; an admin can create another token with \"migctl token create\"")
	// ErrEnded occurs when credentials expire or are revoked during a call.
	ErrEnded = errors.New("the credentials have expired or were revoked")
	// ErrTooMany occurs when a source has failed too often.
	ErrTooMany = errors.New("too many failed attempts from this address; valid credentials are still accepted")
)
