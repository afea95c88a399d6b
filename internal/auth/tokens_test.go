package auth

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A token authenticates its holder until it expires or is revoked, also after a restart, and
// only its hash is stored.
func TestTokenLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		tokens := openTokens(t, s)
		require.False(t, tokens.Any())
		made, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Operator, Pools: []string{"b", "a", "b"}, TTL: time.Hour})
		require.NoError(t, err)
		require.True(t, tokens.Any())
		require.Equal(t, []string{"a", "b"}, made.Pools)
		require.Equal(t, "tester", made.CreatedBy)
		require.NotContains(t, fmt.Sprintf("%+v", s.tokens), secret)
		for range 2 { // the second time after a restart
			p, err := tokens.Authenticate(secret)
			require.NoError(t, err)
			require.Equal(t, "ci", p.Name)
			require.Equal(t, Operator, p.Role)
			require.True(t, p.Scope.Has("a") && !p.Scope.Has("c") && !p.Scope.Has(""))
			require.Equal(t, made.ID, p.TokenID)
			tokens = openTokens(t, s)
		}
		time.Sleep(time.Hour) // fake clock
		_, err = tokens.Authenticate(secret)
		require.Equal(t, ErrExpired, err)
		_, err = tokens.Authenticate(secret + "x")
		require.Equal(t, ErrUnknown, err)

		made, secret, err = tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Viewer})
		require.NoError(t, err)
		require.Equal(t, DefaultTTL, made.ExpiresAt.Sub(made.CreatedAt))
		p, err := tokens.Authenticate(secret)
		require.NoError(t, err)
		for range 2 { // twice is not an error
			revoked, err := tokens.Revoke(by(t, Admin), made.ID)
			require.NoError(t, err)
			require.Equal(t, "tester", revoked.RevokedBy)
		}
		<-p.Revoked
		for range 2 {
			_, err = tokens.Authenticate(secret)
			require.Equal(t, ErrRevoked, err)
			tokens = openTokens(t, s)
		}
		require.True(t, tokens.Any(), "credentials are still required")
	})
}

// A token has at most the role and the pools of its creator, who sees and revokes no others.
func TestTokensOfACreator(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, newFakeStore())
	for _, r := range []struct {
		by    Principal
		role  Role
		pools []string
		ok    bool
	}{
		{tester(Admin), Admin, nil, true},
		{tester(Admin), Viewer, []string{"a"}, true},
		{tester(Admin, "a", "b"), Admin, nil, true},
		{tester(Admin, "a", "b"), Admin, []string{"a"}, true},
		{tester(Admin, "a", "b"), Viewer, []string{"a", "c"}, false},
		{tester(Operator), Admin, nil, false},
		{tester(Operator), Operator, nil, true},
		{Principal{}, Viewer, nil, false},
		{Principal{Role: Admin, Scope: OnlyPools()}, Viewer, nil, false},
	} {
		made, _, err := tokens.Create(With(t.Context(), r.by), TokenRequest{Name: "n", Role: r.role, Pools: r.pools})
		if !r.ok {
			require.ErrorIs(t, err, ErrForbidden)
			continue
		}
		require.NoError(t, err)
		require.True(t, made.scope().Within(r.by.Scope))
	}
	require.Len(t, tokens.List(by(t, Admin), false), 5)
	require.Len(t, tokens.List(by(t, Admin, "a"), false), 2)
	require.Len(t, tokens.List(by(t, Operator), false), 2)
	require.Empty(t, tokens.List(t.Context(), true))
	foreign := tokens.List(by(t, Operator), false)[0]
	for _, caller := range []context.Context{by(t, Admin, "c"), by(t, Viewer), t.Context()} {
		_, err := tokens.Revoke(caller, foreign.ID)
		require.ErrorIs(t, err, fleet.ErrNotFound)
	}
	_, err := tokens.Revoke(by(t, Admin), "tok-none")
	require.ErrorIs(t, err, fleet.ErrNotFound)
}

// Each field of a request has a rule, which its error names.
func TestTokenRequestRules(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, newFakeStore())
	for _, test := range []struct {
		field string
		r     TokenRequest
	}{
		{"name", TokenRequest{Name: "a b", Role: Viewer}},
		{"role", TokenRequest{Name: "n", Role: "root"}},
		{"pools[1]", TokenRequest{Name: "n", Role: Viewer, Pools: []string{"a", ""}}},
		{"pools", TokenRequest{Name: "n", Role: Viewer, Pools: strings.Split(strings.Repeat("a,", maxPools)+"a", ",")}},
		{"ttl", TokenRequest{Name: "n", Role: Viewer, TTL: time.Second}},
		{"ttl", TokenRequest{Name: "n", Role: Viewer, TTL: MaxTTL + 1}},
	} {
		_, _, err := tokens.Create(by(t, Admin), test.r)
		var violated *fleet.FieldError
		require.ErrorAs(t, err, &violated, test.field)
		require.Equal(t, test.field, violated.Field)
	}
}

// A token that cannot be stored is not valid, and one whose revocation cannot be stored still
// is.
func TestTokensWithoutStore(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	tokens := openTokens(t, s)
	made, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
	require.NoError(t, err)
	s.broken = errBroken
	_, _, err = tokens.Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
	require.ErrorIs(t, err, errBroken)
	_, err = tokens.Revoke(by(t, Admin), made.ID)
	require.ErrorIs(t, err, errBroken)
	_, err = tokens.Authenticate(secret)
	require.NoError(t, err)
	require.Len(t, tokens.List(by(t, Admin), true), 1)
}

// A revocation whose outcome is in doubt takes effect if it was stored.
func TestRevocationInDoubt(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	tokens := openTokens(t, s)
	made, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
	require.NoError(t, err)
	p, err := tokens.Authenticate(secret)
	require.NoError(t, err)
	s.doubtful = true
	_, err = tokens.Revoke(by(t, Admin), made.ID)
	require.ErrorIs(t, err, errBroken)
	<-p.Revoked
	_, err = tokens.Authenticate(secret)
	require.Equal(t, ErrRevoked, err)
	_, err = tokens.Revoke(by(t, Admin), made.ID)
	require.NoError(t, err)
	_, _, err = tokens.Create(by(t, Admin), TokenRequest{Name: "m", Role: Viewer})
	require.ErrorIs(t, err, errBroken)
	require.Len(t, tokens.List(by(t, Admin), false), 1, "nobody has its secret, but it can be seen and revoked")
}

// The last use is stored to within ten minutes, and ended tokens are removed after thirty
// days. Credentials are still required then, also after a restart.
func TestTokenUpkeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		tokens := openTokens(t, s)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tokens.Run(ctx)
		}()
		old, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "old", Role: Viewer, TTL: time.Hour})
		require.NoError(t, err)
		time.Sleep(saveUseEvery / 2) // fake clock
		for range 100 {
			_, err = tokens.Authenticate(secret)
			require.NoError(t, err)
		}
		time.Sleep(3 * saveUseEvery) // fake clock
		synctest.Wait()
		kept, saves := s.content()
		require.Equal(t, 2, saves, "its creation and its use")
		used := kept[old.ID].LastUsedAt
		require.InDelta(t, old.CreatedAt.Add(saveUseEvery/2).Unix(), used.Unix(), saveUseEvery.Seconds())
		time.Sleep(keepEnded + 2*time.Hour) // fake clock
		synctest.Wait()
		kept, _ = s.content()
		require.Empty(t, kept)
		require.True(t, tokens.Any())
		require.True(t, openTokens(t, s).Any())
		_, _, err = tokens.Create(by(t, Admin), TokenRequest{Name: "new", Role: Viewer})
		require.NoError(t, err)
		time.Sleep(saveUseEvery + time.Second) // fake clock
		synctest.Wait()
		kept, _ = s.content()
		require.Len(t, kept, 1)
		stop()
		<-ended
		require.Empty(t, tokens.byHash[old.Hash])
	})
}

// There is a limit to tokens, so that a tool that creates one for each run is noticed.
func TestTooManyTokens(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	for n := range maxTokens {
		id := fmt.Sprint("tok-", n)
		s.tokens[id] = Token{ID: id, Hash: hashOf(id), ExpiresAt: time.Now().Add(time.Hour), Role: Viewer}
	}
	_, _, err := openTokens(t, s).Create(by(t, Admin), TokenRequest{Name: "n", Role: Viewer})
	require.ErrorIs(t, err, ErrTooManyTokens)
}

// Secrets are recognisable, and a typing error is too.
func TestSecretForm(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		s := newSecret()
		require.Regexp(t, `^migc_[A-Z2-7]{33}$`, s)
		require.True(t, IsSecret(s))
		require.False(t, seen[s])
		seen[s] = true
		for i := len(SecretPrefix); i < len(s); i++ {
			wrong := []byte(s)
			wrong[i] = 'A' + (wrong[i]-'A'+1)%26
			require.False(t, IsSecret(string(wrong)), "%s, wrong at %d", s, i)
		}
	}
	for _, s := range []string{"", SecretPrefix, strings.Repeat("x", 38)} {
		require.False(t, IsSecret(s))
	}
}

// A secret in place of an id is rejected without being repeated: errors are logged and audited.
func TestRevokeRejectsSecrets(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, newFakeStore())
	_, secret, err := tokens.Create(by(t, Admin), TokenRequest{Name: "ci", Role: Viewer})
	require.NoError(t, err)
	_, err = tokens.Revoke(by(t, Admin), secret)
	var field *fleet.FieldError
	require.ErrorAs(t, err, &field)
	require.Equal(t, "token_id", field.Field)
	require.NotContains(t, err.Error(), secret)
}
