package ratelimit

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// spendAll returns how many things of a size can be had at once.
func spendAll(b *Buckets[string], key string, size int, now time.Time) int {
	n := 0
	for b.Spend(key, size, now).OK() {
		n++
	}
	return n
}

// A key gets its burst at once and the rate from then on, whatever others spend; what it
// saves up is never more than the burst. The limit that is met first counts.
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

// Without a limit there is always enough, and nothing is held.
func TestWithoutLimits(t *testing.T) {
	t.Parallel()
	b := New[string](Limit{}, Limit{})
	for range 1000 {
		require.Equal(t, Verdict{}, b.Spend("a", 1<<30, start))
		require.Equal(t, Verdict{}, b.Overdraw("a", 1<<30, start))
	}
	require.Zero(t, b.Len())
}

// What is overdrawn has to be waited for, by everybody with the key, and an attempt to
// spend does not forgive it.
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

// That a key exceeds its limits is news once a minute of keeping them.
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

// What is larger than the bucket is never spent, but can be overdrawn.
func TestLargerThanTheBucket(t *testing.T) {
	t.Parallel()
	b := New[string](Limit{}, NewLimit(1000, 100))
	require.Equal(t, Verdict{Wait: 15 * time.Second, New: true}, b.Spend("a", 2500, start))
	require.False(t, b.Spend("a", 2500, start.Add(time.Hour)).OK())
	require.Equal(t, 15*time.Second, b.Overdraw("a", 2500, start.Add(time.Hour)).Wait)
}

// Who waits as long as the verdict says has enough then, whatever floats lose.
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

// Times out of order buy nothing: goroutines may spend in another order than they looked
// at the clock.
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

// Keys that come and go leave nothing behind.
func TestFullBucketsAreForgotten(t *testing.T) {
	t.Parallel()
	b := New[string](NewLimit(20, 1), NewLimit(1000, 100))
	most := 0
	for i := range 30_000 {
		b.Spend(strconv.Itoa(i), 1, start.Add(time.Duration(i)*10*time.Millisecond))
		most = max(most, b.Len())
	}
	require.LessOrEqual(t, most, 2*20*100+1, "no more than the keys of two times 20 s")
}
