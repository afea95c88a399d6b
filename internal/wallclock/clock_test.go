package wallclock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/wallclock"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// sources are a wall clock and a monotonic clock set by a test.
type sources struct {
	wall    time.Time
	elapsed time.Duration
	read    func() // called while the wall clock is read; may be nil
}

func (s *sources) clock() *wallclock.Clock {
	return wallclock.New(func() time.Time {
		at := s.wall
		if s.read != nil {
			s.read()
		}
		return at
	}, func() time.Duration { return s.elapsed })
}

func (s *sources) pass(d time.Duration) { s.wall, s.elapsed = s.wall.Add(d), s.elapsed+d }

// The clock follows the monotonic clock, and not the wall clock, until Adopt is called.
func TestClock(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{
		"an hour back": -time.Hour, "40 days forward": 40 * 24 * time.Hour, "a little more than is tolerated": 2*time.Second + 1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &sources{wall: start.In(time.FixedZone("elsewhere", 3600)), elapsed: 5 * time.Hour}
			c := s.clock()
			s.pass(time.Minute)
			require.Equal(t, start.Add(time.Minute), c.Now())
			require.Zero(t, c.Off())
			s.wall = s.wall.Add(by)
			require.Equal(t, start.Add(time.Minute), c.Now(), "it does not step by itself")
			require.Equal(t, by, c.Off())
			s.pass(time.Second)
			require.Equal(t, wallclock.Jump{At: start.Add(time.Minute + time.Second + by), By: by}, c.Adopt())
			s.pass(time.Second)
			require.Equal(t, start.Add(time.Minute+2*time.Second+by), c.Now())
			require.Zero(t, c.Off())
			require.Zero(t, c.Adopt().By)
		})
	}
}

// Small steps are ignored until together they exceed the tolerance.
func TestSmallSteps(t *testing.T) {
	t.Parallel()
	s := &sources{wall: start}
	c := s.clock()
	s.wall = s.wall.Add(-2 * time.Second)
	require.Zero(t, c.Off())
	require.Zero(t, c.Adopt().By)
	require.Equal(t, start, c.Now())
	s.wall = s.wall.Add(-time.Second)
	require.Equal(t, -3*time.Second, c.Off())
}

// A process that was suspended between reading the two clocks sees no jump.
func TestStoppedBetweenTheClocks(t *testing.T) {
	t.Parallel()
	s := &sources{wall: start}
	c := s.clock()
	s.read = func() { s.pass(time.Minute) }
	require.Zero(t, c.Off())
	require.Zero(t, c.Adopt().By)
	s.read = nil
	require.Zero(t, c.Off())
	require.Equal(t, start.Add(2*time.Minute), c.Now())
}

// The system's clock shows the current time and advances.
func TestSystem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := wallclock.System()
		time.Sleep(time.Hour) // fake clock
		require.Equal(t, time.Now().UTC().Round(0), c.Now())
		require.Zero(t, c.Off())
	})
}

// A time returned before a jump, and used after it, is detected.
func TestStale(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, -3 * time.Second, 3 * time.Second, 40 * 24 * time.Hour} {
		before := start
		j := wallclock.Jump{At: before.Add(by), By: by}
		now := j.At.Add(100 * time.Millisecond)
		require.Equal(t, by, j.Stale(before.Add(-time.Second), now), by)
		require.Equal(t, by, j.Stale(before, now), by)
		require.Zero(t, j.Stale(j.At, now), by)
		require.Zero(t, j.Stale(now, now), by)
		require.Zero(t, j.Stale(now.Add(5), now), "two times within a nanosecond")
		require.Zero(t, wallclock.Jump{}.Stale(before, now))
	}
}

// A step shifts a time that is set, and no other.
func TestShift(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	require.Equal(t, at.Add(-time.Hour), wallclock.Shift(at, -time.Hour))
	require.Zero(t, wallclock.Shift(time.Time{}, time.Hour))
}
