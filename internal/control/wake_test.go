package control

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A wake-up reaches exactly the waiters for its key, is kept for a busy one, and never
// blocks the sender.
func TestWakers(t *testing.T) {
	t.Parallel()
	var w wakers[string, int]
	w.wake("nobody waits", 0)
	a1, leaveA1 := w.join("a")
	a2, leaveA2 := w.join("a")
	b, leaveB := w.join("b")

	w.wake("a", 1)
	w.wake("a", 2)
	require.Len(t, a1, 1)
	require.Len(t, a2, 1)
	require.Empty(t, b)

	require.Equal(t, 1, <-a1)
	leaveA2()
	w.wake("a", 3)
	require.Len(t, a1, 1)
	<-a2
	w.wake("a", 4)
	require.Empty(t, a2, "a waiter that has left is not woken")

	leaveA1()
	leaveB()
	leaveB()
	require.Empty(t, w.waiting, "waiters that have left are removed")
}
