package control

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A wake-up reaches all who wait for its key and nobody else, waits for one who
// is busy, and never blocks who sends it.
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
	require.Empty(t, a2, "who left is not woken")

	leaveA1()
	leaveB()
	leaveB()
	require.Empty(t, w.waiting, "nothing is kept of who left")
}
