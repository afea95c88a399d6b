// Package requestid owns the ids of requests, which connect a response with the lines of the
// log: what a valid id is, new ids, and the id in a context.
package requestid

import (
	"context"
	"crypto/rand"
	"strings"
)

// MaxLength is the maximum length of an id.
const MaxLength = 128

// New returns a new unique id.
func New() string { return "req-" + strings.ToLower(rand.Text()) }

// Valid reports whether s, which a caller has chosen, can be an id: 1 to MaxLength printable
// ASCII characters without spaces.
func Valid(s string) bool {
	if s == "" || len(s) > MaxLength {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

type key struct{}

// With returns a context for the request with this id.
func With(ctx context.Context, id string) context.Context { return context.WithValue(ctx, key{}, id) }

// Of returns the id of the request that ctx belongs to; empty if it belongs to none.
func Of(ctx context.Context) string {
	id, _ := ctx.Value(key{}).(string)
	return id
}
