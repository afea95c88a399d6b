// Package auth owns who an operator is and what they may do: roles, principals, the scope of
// pools, the tokens that the controller issues, and the limit of failed attempts. It knows
// neither the wire nor the database: package rpc reads credentials from requests, and package
// control applies scopes.
package auth
