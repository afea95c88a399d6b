package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

func tokensChange(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Tokens: []store.TokenRow{aToken("a"), aToken("b")}})
	for n := store.Version(1); n < 4; n++ {
		a := d.tokens()[0]
		require.Equal(t, n, a.Version)
		a.Doc = []byte(numbered("a", int(n)))
		d.commit(store.Writes{Tokens: []store.TokenRow{a}})
	}
	tokens := d.tokens()
	require.Equal(t, []string{"a", "b"}, ids(tokens, tokenID))
	require.Equal(t, "a-0003", string(tokens[0].Doc))
	require.Equal(t, "token b", string(tokens[1].Doc))
}

// A removed token leaves nothing: its id can be used again, and begins a new row.
func tokensRemoved(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Tokens: []store.TokenRow{aToken("a"), aToken("b"), aToken("c")}})
	d.commit(store.Writes{RemovedTokens: []string{"a", "c", "none"}, Tokens: []store.TokenRow{aToken("d")}})
	require.Equal(t, []string{"b", "d"}, ids(d.tokens(), tokenID))
	gone := aToken("a")
	gone.Version = 1
	require.Equal(t, []string{"a"}, d.conflict(store.Writes{Tokens: []store.TokenRow{gone}}).Tokens)
	d.commit(store.Writes{Tokens: []store.TokenRow{aToken("a")}})
	require.EqualValues(t, 1, d.tokens()[0].Version)
	d = opened(t, drivers.Crash(t, d.Driver))
	require.Equal(t, []string{"a", "b", "d"}, ids(d.tokens(), tokenID))
}
