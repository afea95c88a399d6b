package oidc

import (
	"errors"
	"fmt"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// The reasons why a token is rejected. The texts of the errors that wrap them are for the
// caller: they say what is wrong, and contain neither the token nor a response of an issuer.
var (
	// ErrMalformed occurs for what is not a signed token in the compact form, or is too large.
	ErrMalformed = errors.New("the identity token is malformed")
	// ErrAlgorithm occurs for tokens that are not signed with a public-key algorithm.
	ErrAlgorithm = errors.New("the identity token must be signed with a public-key algorithm")
	// ErrIssuer occurs for tokens of issuers that are not configured.
	ErrIssuer = errors.New("the issuer of the identity token is not one of those in operators.oidc")
	// ErrAudience occurs for tokens that are for another service.
	ErrAudience = errors.New("the identity token is for another service")
	// ErrExpired occurs for tokens whose time is over.
	ErrExpired = errors.New("the identity token has expired; request another one from its issuer")
	// ErrNotYetValid occurs for tokens whose time has not come.
	ErrNotYetValid = errors.New("the identity token is not valid yet: compare the clocks of the issuer and of this controller")
	// ErrSignature occurs for tokens that none of the keys of their issuer has signed.
	ErrSignature = errors.New("no key of its issuer has signed the identity token")
	// ErrUnavailable occurs when the issuer's keys are not known and cannot be fetched now. The
	// token may be valid: the caller can try again.
	ErrUnavailable = fmt.Errorf("the issuer of the identity token cannot be reached: %w", auth.ErrUnavailable)
	// ErrUnmatched occurs for valid tokens that no rule matches.
	ErrUnmatched = fmt.Errorf("no rule of the issuer in operators.oidc matches the identity token: %w in the controller's configuration file", auth.ErrForbidden)
)
