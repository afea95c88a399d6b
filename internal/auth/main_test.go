package auth

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore keeps tokens in memory, and fails while broken.
type fakeStore struct {
	mu     sync.Mutex
	tokens map[string]Token
	had    bool
	broken error
	// doubtful is whether a save that succeeds returns broken nevertheless.
	doubtful bool
	saves    int
}

func (f *fakeStore) Tokens(context.Context) ([]Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Token
	for _, t := range f.tokens {
		all = append(all, t)
	}
	return all, f.broken
}

func (f *fakeStore) HadTokens(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.had, f.broken
}

func (f *fakeStore) SaveToken(_ context.Context, t Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.tokens[t.ID] = t
		f.had = true
		f.saves++
	}
	if f.doubtful {
		return errBroken
	}
	return f.broken
}

func (f *fakeStore) RemoveTokens(_ context.Context, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		delete(f.tokens, id)
	}
	return f.broken
}

// content returns the tokens, and how often one was saved.
func (f *fakeStore) content() (tokens map[string]Token, saves int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.tokens), f.saves
}

func newFakeStore() *fakeStore { return &fakeStore{tokens: map[string]Token{}} }

var errBroken = errors.New("broken")

func openTokens(tb testing.TB, s TokenStore) *Tokens {
	tb.Helper()
	tokens, err := OpenTokens(tb.Context(), s, func() time.Time { return time.Now().UTC() }, slog.New(slog.DiscardHandler), nil)
	require.NoError(tb, err)
	return tokens
}

// by returns a context of a principal with this role and these pools; none means all.
func by(tb testing.TB, role Role, pools ...string) context.Context {
	tb.Helper()
	return With(tb.Context(), tester(role, pools...))
}

func tester(role Role, pools ...string) Principal {
	return Principal{Name: "tester", Method: ByToken, Role: role, Scope: Grant{Pools: pools}.Scope()}
}
