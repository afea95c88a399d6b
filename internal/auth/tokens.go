package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The limits of tokens.
const (
	MinTTL     = time.Minute
	MaxTTL     = 10 * 365 * 24 * time.Hour
	DefaultTTL = 90 * 24 * time.Hour

	maxTokens = 10_000
	// keepEnded is how long tokens are kept after they have expired or were revoked.
	keepEnded = 30 * 24 * time.Hour
	// saveUseEvery is how old a stored time of the last use may be.
	saveUseEvery = 10 * time.Minute
)

// Tokens are the tokens that the controller has issued. All of them are in memory, so that a
// call with one costs no query. It is safe for concurrent use.
type Tokens struct {
	store   TokenStore
	clock   func() time.Time
	log     *slog.Logger
	writing sync.Mutex // serialises the writes, each of which begins with the latest state

	// first is closed when the first token is created.
	first     chan struct{}
	noteFirst func()

	mu     sync.RWMutex
	byHash map[Hash]*issued
	byID   map[string]*issued
}

// issued is a token in memory.
type issued struct {
	// token is replaced, and never changed, under Tokens.mu.
	token   Token
	scope   Scope
	revoked chan struct{}
	usedAt  atomic.Int64 // Unix seconds; zero if it was not used since it was loaded
}

// OpenTokens loads the tokens. Metrics may be nil.
func OpenTokens(ctx context.Context, s TokenStore, clock func() time.Time, log *slog.Logger, metrics prometheus.Registerer) (*Tokens, error) {
	first := make(chan struct{})
	t := &Tokens{
		store: s, clock: clock, log: log, byHash: map[Hash]*issued{}, byID: map[string]*issued{},
		first: first, noteFirst: sync.OnceFunc(func() { close(first) }),
	}
	all, err := s.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	had, err := s.HadTokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	if had {
		t.noteFirst()
	}
	for _, token := range all {
		t.add(token)
	}
	t.register(metrics)
	return t, nil
}

func (t *Tokens) add(token Token) {
	i := &issued{token: token, scope: token.scope(), revoked: make(chan struct{})}
	if !token.RevokedAt.IsZero() {
		close(i.revoked)
	}
	t.byHash[token.Hash], t.byID[token.ID] = i, i
	t.noteFirst()
}

func (t Token) scope() Scope {
	if len(t.Pools) == 0 {
		return AllPools()
	}
	return OnlyPools(t.Pools...)
}

// endedAt returns when the token has expired or was revoked, or will expire.
func (t Token) endedAt() time.Time {
	if !t.RevokedAt.IsZero() && t.RevokedAt.Before(t.ExpiresAt) {
		return t.RevokedAt
	}
	return t.ExpiresAt
}

// Any reports whether a token was ever created.
func (t *Tokens) Any() bool {
	select {
	case <-t.first:
		return true
	default:
		return false
	}
}

// First is closed when the first token is created.
func (t *Tokens) First() <-chan struct{} { return t.first }

// Authenticate returns the principal of a secret, or a *Rejection.
func (t *Tokens) Authenticate(secret string) (Principal, error) {
	if !IsSecret(secret) { // cheap, unlike the hash of what may be a large header
		return Principal{}, ErrUnknown
	}
	t.mu.RLock()
	i := t.byHash[hashOf(secret)]
	if i == nil {
		t.mu.RUnlock()
		return Principal{}, ErrUnknown
	}
	token := i.token
	t.mu.RUnlock()
	now := t.clock()
	switch {
	case !token.RevokedAt.IsZero():
		return Principal{}, ErrRevoked
	case !now.Before(token.ExpiresAt):
		return Principal{}, ErrExpired
	}
	i.usedAt.Store(now.Unix())
	return Principal{
		Name: token.Name, Method: ByToken, Role: token.Role, Scope: i.scope, TokenID: token.ID, ExpiresAt: token.ExpiresAt, Revoked: i.revoked,
	}, nil
}

// TokenRequest describes a new token.
type TokenRequest struct {
	Name string
	Role Role
	// Pools are those that it is limited to; empty for those of its creator.
	Pools []string
	// TTL is how long it is valid; zero means DefaultTTL.
	TTL time.Duration
}

func (r TokenRequest) check() error {
	if err := fleet.CheckID("name", r.Name); err != nil {
		return err
	}
	if !r.Role.Valid() {
		return fleet.Invalid("role", "must be viewer, operator or admin")
	}
	for i, pool := range r.Pools {
		if err := fleet.CheckID(fmt.Sprintf("pools[%d]", i), pool); err != nil {
			return err
		}
	}
	if len(r.Pools) > maxPools {
		return fleet.Invalid("pools", "must be at most %d", maxPools)
	}
	if r.TTL != 0 && r.TTL < MinTTL {
		return fleet.Invalid("ttl", "must be at least %s", MinTTL)
	}
	return fleet.CheckDuration("ttl", r.TTL, MaxTTL)
}

// maxPools is the maximum number of pools that a token is limited to.
const maxPools = 100

// Create creates a token for the principal of ctx, and returns it with its secret; it is
// durable when Create returns without an error. Errors: a *fleet.FieldError, a *Forbidden,
// ErrTooManyTokens, those of the store.
func (t *Tokens) Create(ctx context.Context, r TokenRequest) (Token, string, error) {
	if err := r.check(); err != nil {
		return Token{}, "", err
	}
	by := From(ctx)
	scope := by.Scope
	if len(r.Pools) > 0 {
		scope = OnlyPools(r.Pools...)
	}
	switch {
	case !by.Role.Includes(r.Role):
		return Token{}, "", &Forbidden{fmt.Sprintf("a token of %s cannot have the role %s, which exceeds its creator's", by.Name, r.Role)}
	case !scope.All() && len(scope.Pools()) == 0: // stored, it would be a token for all pools
		return Token{}, "", &Forbidden{fmt.Sprintf("%s is limited to no pools, and cannot create tokens", by.Name)}
	case !scope.Within(by.Scope):
		return Token{}, "", &Forbidden{fmt.Sprintf("a token of %s can have only its creator's pools: %s", by.Name, by.Scope)}
	}
	secret, now := newSecret(), t.clock()
	token := Token{
		ID: "tok-" + strings.ToLower(rand.Text()[:16]), Hash: hashOf(secret), Name: r.Name, Role: r.Role, Pools: scope.Pools(),
		CreatedAt: now, CreatedBy: by.Name, ExpiresAt: now.Add(cmp.Or(r.TTL, DefaultTTL)),
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	if t.count() >= maxTokens {
		return Token{}, "", ErrTooManyTokens
	}
	if err := t.save(ctx, token); err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(token)
	return token, secret, nil
}

func (t *Tokens) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// Revoke ends a token, and returns it; that is durable when Revoke returns without an error.
// For one that was revoked it changes nothing. Errors: fleet.ErrNotFound, also for a token
// that the principal of ctx could not have created; a *fleet.FieldError for a secret; those of
// the store.
func (t *Tokens) Revoke(ctx context.Context, id string) (Token, error) {
	if strings.HasPrefix(id, SecretPrefix) { // which must not be repeated in an error
		return Token{}, fleet.Invalid("token_id", "must be the id of the token, such as tok-4fj2k7qzp1ye3hxd, and not its secret")
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.RLock()
	i := t.byID[id]
	t.mu.RUnlock()
	by := From(ctx)
	if i == nil || !by.governs(i) {
		return Token{}, fmt.Errorf("token %q: %w", id, fleet.ErrNotFound)
	}
	token := i.latest()
	if !token.RevokedAt.IsZero() {
		return token, nil
	}
	token.RevokedAt, token.RevokedBy = t.clock(), by.Name
	if err := t.save(ctx, token); err != nil {
		return Token{}, fmt.Errorf("revoke token %q: %w", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i.token = token
	close(i.revoked)
	return token, nil
}

// save stores a token. After an error it is in doubt whether the token was stored, so what is in
// memory follows the store.
func (t *Tokens) save(ctx context.Context, token Token) error {
	err := t.store.SaveToken(ctx, token)
	if err == nil {
		return nil
	}
	stored, failed := t.store.Tokens(context.WithoutCancel(ctx)) // the caller may have left
	if failed != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, now := range stored {
		i := t.byID[now.ID]
		switch {
		case i == nil:
			t.add(now)
		case i.token.RevokedAt.IsZero() && !now.RevokedAt.IsZero():
			close(i.revoked)
			fallthrough
		default:
			i.token = now
		}
	}
	return err
}

// governs reports whether p could have created the token.
func (p Principal) governs(i *issued) bool {
	return p.Role.Includes(i.token.Role) && i.scope.Within(p.Scope)
}

// latest returns the token with the time of its last use. The caller excludes changes.
func (i *issued) latest() Token {
	token := i.token
	if s := i.usedAt.Load(); s != 0 {
		if at := time.Unix(s, 0).UTC().Truncate(saveUseEvery); at.After(token.LastUsedAt) {
			token.LastUsedAt = later(at, token.CreatedAt)
		}
	}
	return token
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// List returns the tokens that the principal of ctx could have created, latest created first.
func (t *Tokens) List(ctx context.Context, ended bool) []Token {
	by, now := From(ctx), t.clock()
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []Token
	for _, i := range t.byID {
		if by.governs(i) && (ended || now.Before(i.token.endedAt())) {
			all = append(all, i.latest())
		}
	}
	slices.SortFunc(all, laterFirst)
	return all
}

func laterFirst(a, b Token) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}

// Run stores the times of the last use and removes tokens that ended long ago, until ctx ends.
func (t *Tokens) Run(ctx context.Context) {
	tick := time.NewTicker(saveUseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.saveUse(ctx)
			t.purge(ctx)
		}
	}
}

// saveUse stores the times of the last use that have changed.
func (t *Tokens) saveUse(ctx context.Context) {
	t.writing.Lock()
	defer t.writing.Unlock()
	for _, i := range t.all() {
		token := i.latest()
		if token.LastUsedAt.Equal(i.token.LastUsedAt) {
			continue
		}
		if err := t.save(ctx, token); err != nil {
			t.log.Warn("last use of tokens not stored", logkey.Error, err)
			return
		}
		t.mu.Lock()
		i.token = token
		t.mu.Unlock()
	}
}

func (t *Tokens) all() []*issued {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*issued, 0, len(t.byID))
	for _, i := range t.byID {
		all = append(all, i)
	}
	return all
}

// purge removes tokens that ended long ago.
func (t *Tokens) purge(ctx context.Context) {
	t.writing.Lock()
	defer t.writing.Unlock()
	all, before := t.all(), t.clock().Add(-keepEnded)
	var old []*issued
	var ids []string
	for _, i := range all {
		if i.token.endedAt().Before(before) {
			old, ids = append(old, i), append(ids, i.token.ID)
		}
	}
	if len(old) == 0 {
		return
	}
	if err := t.store.RemoveTokens(ctx, ids); err != nil {
		t.log.Warn("old tokens not removed", logkey.Error, err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range old {
		delete(t.byHash, i.token.Hash)
		delete(t.byID, i.token.ID)
	}
}
