package maintenance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// After the process was suspended, readers get a second before anything is judged.
func TestGrace(t *testing.T) {
	t.Parallel()
	var g grace
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	tick := 250 * time.Millisecond
	require.Equal(t, at(0), g.asOf(at(0)))
	require.Equal(t, at(tick), g.asOf(at(tick)))
	late := 40 * time.Second
	for d := late; d < late+readersGrace; d += tick {
		require.Equal(t, at(tick), g.asOf(at(d)), d)
	}
	require.Equal(t, at(late+readersGrace), g.asOf(at(late+readersGrace)))
	// Late again within the grace: still as of the time before the first late tick.
	again := late + time.Minute
	require.Equal(t, at(late+readersGrace), g.asOf(at(again)))
	require.Equal(t, at(late+readersGrace), g.asOf(at(again+readersGrace-1)))
	require.Equal(t, at(again+readersGrace), g.asOf(at(again+readersGrace)))
}

// A clock that is set back, after a step forward or long after a late tick, does not
// suspend judgement until it has caught up.
func TestGraceWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	var g grace
	at := func(d time.Duration) time.Time { return time.Unix(1_000_000, 0).Add(d) }
	g.asOf(at(0))
	require.Equal(t, at(0), g.asOf(at(time.Hour)), "a step forward")
	back := time.Second / 4
	require.Equal(t, at(back), g.asOf(at(back)))
	require.Equal(t, at(2*back), g.asOf(at(2*back)))
}

// A grace that has begun moves with the clock.
func TestGraceMoves(t *testing.T) {
	t.Parallel()
	var g grace
	g.move(-time.Hour)
	at := time.Unix(100_000, 0)
	require.Equal(t, at, g.asOf(at))
	late := at.Add(time.Minute)
	require.Equal(t, at, g.asOf(late), "the process was suspended")
	g.move(-time.Hour)
	now := late.Add(sweepEvery - time.Hour)
	require.Equal(t, at.Add(-time.Hour), g.asOf(now))
	now = now.Add(readersGrace)
	require.Equal(t, now, g.asOf(now))
}
