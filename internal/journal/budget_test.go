package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// plenty is more than any test spends.
func plenty() *rate.Limiter { return rate.NewLimiter(1, maxBurst) }

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
	b, now := newBudget(ratelimit.NewLimit(20, 1), plenty()), start
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
	b, got := newBudget(ratelimit.NewLimit(20, 1), plenty()), 0
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
	b := newBudget(ratelimit.NewLimit(1, 0.1), plenty())
	require.Equal(t, 1, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(9999*time.Millisecond)))
	require.Equal(t, 1, spendAll(&b, "vm-1", start.Add(10*time.Second)))
}

// VMs that have gone leave no buckets behind.
func TestBudgetForgetsFullBuckets(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(20, 1), plenty())
	most := 0
	for i := range 30_000 {
		b.spend(fleet.VMID(fmt.Sprintf("vm-%d", i)), start.Add(time.Duration(i)*10*time.Millisecond))
		most = max(most, b.each.Len())
	}
	require.LessOrEqual(t, most, 2*20*100+1, "at most the VMs of two periods of 20 s")
}

// All VMs together get their burst immediately and the rate from then on. A VM that is
// refused because of the shared limit keeps its tokens, however often it asks.
func TestBudgetOfAllCostsNoVMItsTokens(t *testing.T) {
	t.Parallel()
	b := newBudget(ratelimit.NewLimit(2, minPerSecond), rate.NewLimiter(1, 3))
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
	b := newBudget(ratelimit.NewLimit(1, minPerSecond), rate.NewLimiter(minPerSecond, 3))
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
	b := newBudget(ratelimit.NewLimit(-1, 1), plenty())
	require.Zero(t, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(time.Hour)))
	require.Zero(t, b.each.Len())
}
