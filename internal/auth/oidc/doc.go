// Package oidc owns the authentication of operators by identity tokens of OpenID Connect
// issuers: which tokens are accepted, when the keys of their issuers are fetched, and which
// rule a token matches. Package go-oidc does the cryptography.
//
// Everything that a caller can cause without a valid token is bounded: a token's size, the
// memory for its claims, and how often and how long its issuer is asked. What is cheap to check
// is checked first.
package oidc
