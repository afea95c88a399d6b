package ratelimit

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// spendAll returns how many things of a size are available at once.
func spendAll(b *Buckets[string], key string, size int, now time.Time) int {
	n := 0
	for b.Spend(key, size, now).OK() {
		n++
	}
	return n
}

// A key gets its burst immediately and the rate from then on, whatever others spend; it
// never saves up more than the burst. The limit that is reached first counts.
func TestSpendIsBurstThenRate(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(20, 1), NewLimit(1000, 100))
	require.Equal(t, 20, spendAll(b, "a", 10, start))
	require.Equal(t, Verdict{Wait: time.Second}, b.Spend("a", 10, start))
	require.Equal(t, 2, spendAll(b, "b", 500, start))
	require.Equal(t, Verdict{Wait: 5 * time.Second}, b.Spend("b", 500, start))
	require.Equal(t, 3, spendAll(b, "a", 10, start.Add(3*time.Second)))
	require.Zero(t, spendAll(b, "b", 500, start.Add(5*time.Second-1)))
	require.Equal(t, 1, spendAll(b, "b", 500, start.Add(5*time.Second)))
	require.Equal(t, 20, spendAll(b, "a", 10, start.Add(time.Hour)))
	require.Equal(t, 2, spendAll(b, "b", 500, start.Add(time.Hour)))
}

// Without a limit there is always enough, and no keys are stored.
func TestWithoutLimits(t *testing.T) {
	t.Parallel()
	b := New[string](Limit{}, Limit{})
	for range 1000 {
		require.Equal(t, Verdict{}, b.Spend("a", 1<<30, start))
		require.Equal(t, Verdict{}, b.Overdraw("a", 1<<30, start))
	}
	require.Zero(t, b.Len())
}

// An overdraft must be waited for by all users of the key, and an attempt to spend does not
// shorten it.
func TestOverdraw(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(1000, 100), NewLimit(1000, 100))
	require.Zero(t, b.Overdraw("a", 1000, start).Wait)
	v := b.Overdraw("a", 500, start)
	require.Equal(t, Verdict{Wait: 5 * time.Second, New: true}, v)
	require.Equal(t, Verdict{Wait: 5*time.Second + 10*time.Millisecond}, b.Spend("a", 1, start))
	require.Equal(t, 6*time.Second, b.Overdraw("a", 100, start).Wait)
	require.Zero(t, b.Overdraw("b", 1000, start).Wait)
	require.Equal(t, time.Nanosecond, b.Overdrawn("a", start.Add(6*time.Second-1)))
	require.Zero(t, b.Overdrawn("a", start.Add(6*time.Second)))
	require.False(t, b.Spend("a", 1, start.Add(6*time.Second)).OK())
	require.True(t, b.Spend("a", 1, start.Add(6*time.Second+10*time.Millisecond)).OK())
}

// An excess counts as new once after a minute within the limits.
func TestBouts(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(1, 0.001), Limit{})
	require.False(t, b.Spend("a", 0, start).New)
	require.True(t, b.Spend("a", 0, start).New)
	for i := range 100 {
		require.False(t, b.Spend("a", 0, start.Add(time.Duration(i)*time.Second)).New)
	}
	require.True(t, b.Spend("a", 0, start.Add(100*time.Second+time.Minute)).New)
}

// An amount larger than the bucket can never be spent, but can be overdrawn.
func TestLargerThanTheBucket(t *testing.T) {
	t.Parallel()
	b := New[string](Limit{}, NewLimit(1000, 100))
	require.Equal(t, Verdict{Wait: 15 * time.Second, New: true}, b.Spend("a", 2500, start))
	require.False(t, b.Spend("a", 2500, start.Add(time.Hour)).OK())
	require.Equal(t, 15*time.Second, b.Overdraw("a", 2500, start.Add(time.Hour)).Wait)
}

// After the wait of the verdict there are enough tokens, in spite of floating point.
func TestWaitIsEnough(t *testing.T) {
	t.Parallel()
	b, now := New[string](Limit{}, NewLimit(64<<16, 64<<10)), start
	for size := range 10_000 {
		v := b.Spend("a", 40_000+size, now)
		if now = now.Add(v.Wait); !v.OK() {
			require.Equal(t, Verdict{}, b.Spend("a", 40_000+size, now), size)
		}
	}
}

// Times out of order yield no extra tokens: goroutines may spend in another order than that
// in which they read the clock.
func TestTimesOutOfOrder(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(20, 1), Limit{})
	spent := 0
	for i := range 100 {
		if b.Spend("a", 0, start.Add(time.Duration(i%2)*time.Second)).OK() {
			spent++
		}
	}
	require.Equal(t, 20+1, spent, "and one for the second")
}

// Keys that are no longer used leave nothing behind.
func TestFullBucketsAreForgotten(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(20, 1), NewLimit(1000, 100))
	most := 0
	for i := range 30_000 {
		b.Spend(strconv.Itoa(i), 1, start.Add(time.Duration(i)*10*time.Millisecond))
		most = max(most, b.Len())
	}
	require.LessOrEqual(t, most, 2*20*100+1, "at most the keys of two periods of 20 s")
}
