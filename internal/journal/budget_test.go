package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// plenty is more than any test spends, even after a clock was set back by a day.
var plenty = ratelimit.NewLimit(maxBurst, 1)

// spendAll spends all available tokens and returns how many there were.
func spendAll(b *budget, vm fleet.VMID, now time.Time) int {
	n := 0
	for b.spend(vm, now) {
		n++
	}
	return n
}

// A VM gets its burst immediately and the rate from then on, whatever others spend; it
// never saves up more than the burst.
func TestBudgetIsBurstThenRate(t *testing.T) {
	t.Parallel()
	b, now := newBudget(ratelimit.NewLimit(20, 1), plenty), start
	require.Equal(t, 20, spendAll(&b, "vm-1", now))
	require.Equal(t, 20, spendAll(&b, "vm-2", now))
	require.Zero(t, spendAll(&b, "vm-1", now.Add(time.Second-1)))
	require.Equal(t, 1, spendAll(&b, "vm-1", now.Add(time.Second)))
	now = now.Add(4 * time.Second)
	require.Equal(t, 3, spendAll(&b, "vm-1", now))
	require.Equal(t, 4, spendAll(&b, "vm-2", now))
	require.Equal(t, 20, spendAll(&b, "vm-1", now.Add(time.Hour)))
}

// In the long run the rate holds, even when full buckets are dropped, and while a VM asks
// much more often than its limit.
func TestBudgetHoldsInTheLongRun(t *testing.T) {
	t.Parallel()
	b, got := newBudget(ratelimit.NewLimit(20, 1), plenty), 0
	for i := range 10 * 600 {
		if b.spend("vm-1", start.Add(time.Duration(i)*100*time.Millisecond)) {
			got++
		}
	}
	require.Equal(t, 20+599, got)
}

// A fractional rate is exact.
func TestBudgetBelowOneASecond(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(1, 0.1), plenty)
	require.Equal(t, 1, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(9999*time.Millisecond)))
	require.Equal(t, 1, spendAll(&b, "vm-1", start.Add(10*time.Second)))
}

// VMs that have gone leave no buckets behind, even after a clock was set back.
func TestBudgetForgetsFullBuckets(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(20, 1), plenty)
	b.spend("vm-0", start.Add(24*time.Hour))
	most := 0
	for i := range 30_000 {
		b.spend(fleet.VMID(fmt.Sprintf("vm-%d", i)), start.Add(time.Duration(i)*10*time.Millisecond))
		most = max(most, b.each.Len())
	}
	require.LessOrEqual(t, most, 2*20*100+1, "at most the VMs of two periods of 20 s")
}

// A clock that is set back empties a bucket at most, which then fills as before. A VM's
// bucket does so from its next request.
func TestBudgetSurvivesAClockSetBack(t *testing.T) {
	t.Parallel()
	back, some := start.Add(-24*time.Hour), ratelimit.NewLimit(20, 1)
	for name, c := range map[string]struct {
		budget budget
		asked  time.Duration // until both were used after the clock was set back
	}{
		"of a VM": {newBudget(some, plenty), 0},
		"of all":  {newBudget(plenty, some), 0},
		"of both": {newBudget(some, some), time.Second},
	} {
		b, asked := c.budget, back.Add(c.asked)
		require.Equal(t, 20, spendAll(&b, "vm-1", start), name)
		require.Zero(t, spendAll(&b, "vm-1", back), name)
		require.Zero(t, spendAll(&b, "vm-1", asked), name)
		require.Equal(t, 5, spendAll(&b, "vm-1", asked.Add(5*time.Second)), name)
		require.Equal(t, 20, spendAll(&b, "vm-1", asked.Add(time.Hour)), name)
	}
	b := newBudget(some, plenty)
	require.Equal(t, 20, spendAll(&b, "vm-1", start))
	require.Equal(t, 20, spendAll(&b, "vm-2", back))
}

// All VMs together get their burst immediately and the rate from then on. A VM that is
// refused because of the shared limit keeps its tokens, however often it asks.
func TestBudgetOfAllCostsNoVMItsTokens(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(2, minPerSecond), ratelimit.NewLimit(3, 1))
	require.Equal(t, 2, spendAll(&b, "vm-1", start))
	require.Equal(t, 1, spendAll(&b, "vm-2", start))
	for range 100 {
		require.False(t, b.spend("vm-2", start.Add(time.Second-1)))
		require.False(t, b.spend("vm-3", start.Add(time.Second-1)))
	}
	require.Equal(t, 1, spendAll(&b, "vm-2", start.Add(time.Second)))
	require.Equal(t, 2, spendAll(&b, "vm-3", start.Add(time.Minute)))
}

// A VM that is refused because of its own budget does not use up the shared one, however
// often it asks.
func TestBudgetOfAVMCostsOthersNothing(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(1, minPerSecond), ratelimit.NewLimit(3, minPerSecond))
	require.Equal(t, 1, spendAll(&b, "vm-1", start))
	for range 100 {
		require.False(t, b.spend("vm-1", start))
	}
	require.Equal(t, 1, spendAll(&b, "vm-2", start))
	require.Equal(t, 1, spendAll(&b, "vm-3", start))
	require.Zero(t, spendAll(&b, "vm-4", start))
}

// A negative burst means no heartbeat files at all.
func TestBudgetOfNothing(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(-1, 1), plenty)
	require.Zero(t, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(time.Hour)))
	require.Zero(t, b.each.Len())
}
