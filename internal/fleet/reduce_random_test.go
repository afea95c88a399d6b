package fleet

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// snapshot is all of a state, also what its slices have room for.
func snapshot(tb testing.TB, s State) string {
	tb.Helper()
	doc, err := json.Marshal([]any{s.VM, s.Commands[:cap(s.Commands)], s.Named, len(s.Commands)})
	require.NoError(tb, err)
	return string(doc)
}
