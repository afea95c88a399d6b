package control

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A token is valid in its own scope only, and any change makes it invalid.
func TestTokens(t *testing.T) {
	t.Parallel()
	mine, other := scopeOf("store", "list", "a"), scopeOf("store", "list", "b")
	token := sealSeq(mine, 42)

	seq, ok := unsealSeq(mine, token)
	require.True(t, ok)
	require.Equal(t, int64(42), seq)
	_, ok = unsealSeq(other, token)
	require.False(t, ok)

	for i := range token {
		for _, c := range []byte("Ab0-_=. ") {
			if token[i] == c {
				continue
			}
			changed := token[:i] + string(c) + token[i+1:]
			_, ok := unsealSeq(mine, changed)
			require.False(t, ok, changed)
		}
	}
	for _, garbage := range []string{"", "x", token + "A", token[1:], token + "=", token + "\n", seal(mine, "-1"), seal(mine, "1e3")} {
		_, ok := unsealSeq(mine, garbage)
		require.False(t, ok, garbage)
	}
}

// Every position survives encoding and decoding.
func TestTokensKeepTheirPlace(t *testing.T) {
	t.Parallel()
	for _, seq := range []int64{0, 1, math.MaxInt64} {
		got, ok := unsealSeq("scope", sealSeq("scope", seq))
		require.True(t, ok)
		require.Equal(t, seq, got)
	}
	got, ok := unseal("scope", seal("scope", ""))
	require.True(t, ok)
	require.Empty(t, got)
}

// Whatever is given as a token, it decodes to a possible position, in one scope only, and
// has no second spelling; and every position can be decoded from its token.
func FuzzUnseal(f *testing.F) {
	f.Add("scope", sealSeq("scope", 7))
	f.Add("scope", sealSeq("other", 7))
	f.Add("", "")
	f.Add("scope", "AAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, scope, token string) {
		if place, ok := unseal(scope, token); ok {
			if _, ok := unseal(scope+"x", token); ok {
				t.Errorf("%q is valid in two scopes", token)
			}
			if seal(scope, place) != token {
				t.Errorf("%q is a second spelling for %q", token, place)
			}
		}
		if seq, ok := unsealSeq(scope, token); ok && seq < 0 {
			t.Errorf("%q leads to %d", token, seq)
		}
		if place, ok := unseal(scope, seal(scope, token)); len(token) <= 128 && (!ok || place != token) {
			t.Errorf("the place %q came back as %q, %t", token, place, ok)
		}
	})
}
