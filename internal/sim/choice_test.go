package sim

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The same seed makes the same choices, and each agent of a fleet makes different ones.
func TestFleet_SeedsAgents(t *testing.T) {
	t.Parallel()
	draw := func(seed uint64) (drawn []uint64) {
		cfg := DefaultConfig()
		cfg.Seed = seed
		fleet, err := NewFleet(FleetConfig{Agent: cfg, VMs: 100, StartRate: 1})
		require.NoError(t, err)
		for _, a := range fleet.Agents() {
			drawn = append(drawn, a.rng.Uint64())
		}
		return drawn
	}
	once, again := draw(1), draw(1)
	require.Equal(t, once, again)
	require.NotEqual(t, once, draw(2))
	distinct := map[uint64]bool{}
	for _, n := range once {
		distinct[n] = true
	}
	require.Len(t, distinct, 100)
}

func TestAgenda_EarliestFirst(t *testing.T) {
	t.Parallel()
	var order []int
	var g agenda
	for _, n := range []int{3, 1, 2} {
		g.after(time.Duration(n)*time.Hour, func(*stream) error { order = append(order, n); return nil })
	}
	now := time.Now()
	require.Nil(t, g.due(now))
	require.InDelta(t, time.Hour, wait(now, 2*time.Hour, &g), float64(time.Minute))
	for range 3 {
		require.NoError(t, g.due(now.Add(4*time.Hour))(nil))
	}
	require.Equal(t, []int{1, 2, 3}, order)
	require.Empty(t, g)
	require.Equal(t, 2*time.Hour, wait(now, 2*time.Hour, &g))
}

// An agent remembers a bounded number of ids and drops the oldest first.
func TestRecentIDs_Bounded(t *testing.T) {
	t.Parallel()
	var r recentIDs
	for i := range recentLimit + 1 {
		require.True(t, r.add(strconv.Itoa(i)))
	}
	require.False(t, r.add(strconv.Itoa(recentLimit)))
	require.False(t, r.add("1"))
	require.True(t, r.add("0"), "the oldest was dropped")
	require.Len(t, r.known, recentLimit)
}

// Unknown command types from the controller use a bounded amount of memory.
func TestTally_Bounded(t *testing.T) {
	t.Parallel()
	var n tally
	for i := range 2 * tallyLimit {
		n.add(strconv.Itoa(i))
	}
	require.Len(t, n.copy(), tallyLimit+1)
	require.EqualValues(t, tallyLimit, n.copy()[tallyRest])
	require.EqualValues(t, 2*tallyLimit, total(n.copy()))
}
