package requestid

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ids that callers choose are bounded, and cannot break a log line or a header.
func TestValid(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "5f0c:12/+=@", New(), strings.Repeat("x", MaxLength)} {
		require.True(t, Valid(id), id)
	}
	for _, id := range []string{"", " ", "a b", "a\n", "a\x7f", "ä", strings.Repeat("x", MaxLength+1)} {
		require.False(t, Valid(id), id)
	}
}

// An id reaches everything that works on its request, even after the request has ended.
func TestContext(t *testing.T) {
	t.Parallel()
	require.Empty(t, Of(t.Context()))
	ctx, cancel := context.WithCancel(With(t.Context(), "req-1"))
	cancel()
	require.Equal(t, "req-1", Of(context.WithoutCancel(ctx)))
	one := New()
	require.NotEqual(t, one, New())
}
