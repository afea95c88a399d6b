package auth

import (
	"context"
	"time"
)

// Token is what is kept of a token for operators and tools. Its JSON is the form in which it
// is stored.
type Token struct {
	// ID identifies it in the API; Hash is that of its secret.
	ID   string `json:"id"`
	Hash Hash   `json:"hash"`
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Pools are those that it is limited to; empty for all.
	Pools     []string  `json:"pools,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// CreatedBy and RevokedBy are names of principals.
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at"`
	// LastUsedAt is coarse: to within ten minutes.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	RevokedBy  string    `json:"revoked_by,omitempty"`
}

// TokenStore stores tokens. It is safe for concurrent use.
type TokenStore interface {
	// Tokens returns all tokens, in no order.
	Tokens(ctx context.Context) ([]Token, error)
	// HadTokens reports whether a token was ever stored, whatever has become of it.
	HadTokens(ctx context.Context) (bool, error)
	// SaveToken stores a token, new or changed; it is durable when SaveToken returns nil. The
	// audit event of ctx, if there is one, is stored with it.
	SaveToken(ctx context.Context, t Token) error
	// RemoveTokens removes the tokens with these ids, if they exist.
	RemoveTokens(ctx context.Context, ids []string) error
}
