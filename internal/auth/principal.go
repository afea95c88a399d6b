package auth

import (
	"context"
	"time"
)

// Method is how a principal was authenticated.
type Method string

// The methods.
const (
	// Unauthenticated is for callers who need no credentials: on loopback addresses while no
	// authentication is configured, or with --insecure-operators.
	Unauthenticated Method = "none"
	// Socket is for callers of the control socket, who have access to the data directory.
	Socket Method = "socket"
	// ByToken is for tokens that the controller issued.
	ByToken Method = "token"
	// ByOIDC is for identity tokens of an OpenID Connect issuer.
	ByOIDC Method = "oidc"
	// ByCertificate is for client certificates.
	ByCertificate Method = "certificate"
)

// Methods are all methods.
var Methods = []Method{Unauthenticated, Socket, ByToken, ByOIDC, ByCertificate}

// Principal is an authenticated operator or tool. The zero value may do nothing.
type Principal struct {
	// Name identifies it among those of its method: the name of a token, or what an issuer or a
	// certificate says.
	Name   string
	Method Method
	Role   Role
	Scope  Scope
	// TokenID is the id of the token that the controller issued; empty for other methods.
	TokenID string
	// ExpiresAt is when the credentials end; zero for never.
	ExpiresAt time.Time
	// Revoked is closed when the credentials are revoked; nil if they cannot be.
	Revoked <-chan struct{}
	// Holds reports whether the credentials are still accepted, if that can end without
	// Revoked; otherwise it is nil.
	Holds func() bool
}

// recheckEvery is how often a call that takes long asks whether its credentials hold.
const recheckEvery = 2 * time.Second

// Anyone is the principal of callers who need no credentials.
func Anyone() Principal {
	return Principal{Name: "anyone", Method: Unauthenticated, Role: Admin, Scope: AllPools()}
}

// Local is the principal of callers of the control socket.
func Local() Principal {
	return Principal{Name: "local", Method: Socket, Role: Admin, Scope: AllPools()}
}

type principalKey struct{}

// With returns a context whose calls are made by p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the principal of a context. Without one it returns the zero value, which may do
// nothing and sees nothing.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// WhileValid returns a context that ends when the credentials of its principal expire or are
// revoked, with ErrEnded as its cause. It is for calls that take long.
func WhileValid(ctx context.Context) (context.Context, context.CancelFunc) {
	p := From(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	if p.Revoked != nil || p.Holds != nil || !p.ExpiresAt.IsZero() {
		go func() {
			if p.waitForEnd(ctx.Done()) {
				cancel(ErrEnded)
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

// waitForEnd waits until the credentials end, and then returns true, or until done.
func (p Principal) waitForEnd(done <-chan struct{}) bool {
	var expired, due <-chan time.Time
	if !p.ExpiresAt.IsZero() {
		timer := time.NewTimer(time.Until(p.ExpiresAt))
		defer timer.Stop()
		expired = timer.C
	}
	if p.Holds != nil {
		ticker := time.NewTicker(recheckEvery)
		defer ticker.Stop()
		due = ticker.C
	}
	for {
		select {
		case <-p.Revoked:
			return true
		case <-expired:
			return true
		case <-due:
			if !p.Holds() {
				return true
			}
		case <-done:
			return false
		}
	}
}
