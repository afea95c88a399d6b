package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// spendAll returns how many tokens there are to be had at once.
func spendAll(b *budget, vm fleet.VMID, now time.Time) int {
	n := 0
	for b.spend(vm, now) {
		n++
	}
	return n
}

// A VM gets its burst at once and the rate from then on, whatever others spend;
// what it saves up is never more than the burst.
func TestBudgetIsBurstThenRate(t *testing.T) {
	t.Parallel()
	b, now := newBudget(20, 1), start
	require.Equal(t, 20, spendAll(&b, "vm-1", now))
	require.Equal(t, 20, spendAll(&b, "vm-2", now))
	require.Zero(t, spendAll(&b, "vm-1", now.Add(time.Second-1)))
	require.Equal(t, 1, spendAll(&b, "vm-1", now.Add(time.Second)))
	now = now.Add(4 * time.Second)
	require.Equal(t, 3, spendAll(&b, "vm-1", now))
	require.Equal(t, 4, spendAll(&b, "vm-2", now))
	require.Equal(t, 20, spendAll(&b, "vm-1", now.Add(time.Hour)))
}

// In the long run the rate holds, also across the turns at which full buckets
// are forgotten, and while a VM asks much more often than it may.
func TestBudgetHoldsInTheLongRun(t *testing.T) {
	t.Parallel()
	b, got := newBudget(20, 1), 0
	for i := range 10 * 600 {
		if b.spend("vm-1", start.Add(time.Duration(i)*100*time.Millisecond)) {
			got++
		}
	}
	require.Equal(t, 20+599, got)
}

// A fractional rate is what it says.
func TestBudgetBelowOneASecond(t *testing.T) {
	t.Parallel()
	b := newBudget(1, 0.1)
	require.Equal(t, 1, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(9999*time.Millisecond)))
	require.Equal(t, 1, spendAll(&b, "vm-1", start.Add(10*time.Second)))
}

// VMs that come and go leave nothing behind.
func TestBudgetForgetsFullBuckets(t *testing.T) {
	t.Parallel()
	b := newBudget(20, 1)
	most := 0
	for i := range 30_000 {
		b.spend(fleet.VMID(fmt.Sprintf("vm-%d", i)), start.Add(time.Duration(i)*10*time.Millisecond))
		most = max(most, len(b.young)+len(b.old))
	}
	require.LessOrEqual(t, most, 2*20*100+1, "no more than the VMs of two times 20 s")
}

// A clock that is set back empties a bucket at most, and it fills as before.
func TestBudgetSurvivesAClockSetBack(t *testing.T) {
	t.Parallel()
	b := newBudget(20, 1)
	require.Equal(t, 20, spendAll(&b, "vm-1", start))
	back := start.Add(-24 * time.Hour)
	require.Zero(t, spendAll(&b, "vm-1", back))
	require.Equal(t, 5, spendAll(&b, "vm-1", back.Add(5*time.Second)))
	require.Equal(t, 20, spendAll(&b, "vm-2", back))
}

// A burst below zero is no heartbeat files at all.
func TestBudgetOfNothing(t *testing.T) {
	t.Parallel()
	b := newBudget(-1, 1)
	require.Zero(t, spendAll(&b, "vm-1", start))
	require.Zero(t, spendAll(&b, "vm-1", start.Add(time.Hour)))
	require.Empty(t, b.young)
}
