package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// beating is an agent that has sent n heartbeats at intervals; it returns the time of the
// last one.
func beating(n int, every time.Duration) (Liveness, time.Time) {
	l, at := Liveness{OpenedAt: t0, LastMessageAt: t0}, t0
	for range n {
		at = at.Add(every)
		l = l.Receive(at).ReceiveHeartbeat(at)
	}
	return l, at
}

func TestGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		report func(Liveness, time.Time) Liveness
		beats  int
		every  time.Duration
		within time.Duration // zero for never
	}{
		"no heartbeat":       {nil, 0, time.Second, 0},
		"one heartbeat":      {nil, 1, time.Second, 0},
		"every second":       {nil, 4, time.Second, minSilence},
		"every 15 seconds":   {nil, 4, 15 * time.Second, minSilence},
		"every minute":       {nil, 4, time.Minute, 3 * time.Minute},
		"an extra heartbeat": {func(l Liveness, at time.Time) Liveness { return l.ReceiveHeartbeat(at) }, 4, 32 * time.Second, 93 * time.Second},
		"a message since":    {func(l Liveness, at time.Time) Liveness { return l.Receive(at.Add(time.Minute)) }, 4, time.Second, time.Minute + minSilence},
		"in a job":           {func(l Liveness, _ time.Time) Liveness { return l.ReceiveEvent(EventJobStarted) }, 4, time.Second, 0},
		"after a job": {func(l Liveness, _ time.Time) Liveness {
			return l.ReceiveEvent(EventJobStarted).ReceiveEvent(EventJobCompleted)
		}, 4, time.Second, minSilence},
		"a heartbeat in a job":    {func(l Liveness, at time.Time) Liveness { return l.ReceiveEvent(EventJobStarted).ReceiveHeartbeat(at) }, 4, time.Second, minSilence},
		"another event in a job":  {func(l Liveness, _ time.Time) Liveness { return l.ReceiveEvent(EventJobStarted).ReceiveEvent("other") }, 4, time.Second, 0},
		"reports over HTTP":       {elsewhere, 0, 0, newStreamAge + suspectFor},
		"over HTTP, every minute": {elsewhere, 2, time.Minute, newStreamAge + 80*time.Second},
		"over HTTP, and a message since": {func(l Liveness, at time.Time) Liveness {
			return elsewhere(l, at).Receive(at.Add(newStreamAge + time.Second))
		}, 0, 0, 0},
	} {
		l, last := beating(test.beats, test.every)
		if test.report != nil {
			l = test.report(l, last)
		}
		if test.within == 0 {
			require.NoError(t, l.Gone(last.Add(24*time.Hour)), name)
			continue
		}
		require.NoError(t, l.Gone(last.Add(test.within)), name)
		require.ErrorIs(t, l.Gone(last.Add(test.within+1)), ErrSilent, name)
	}
}

// elsewhere is a report over HTTP once the stream is old enough to be suspected.
func elsewhere(l Liveness, at time.Time) Liveness {
	l, _ = l.ReceiveElsewhere(at.Add(newStreamAge))
	return l
}

// A stream is suspect once until a message arrives, and not while it is new.
func TestSuspect(t *testing.T) {
	t.Parallel()
	l, _ := beating(0, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	l, newlySuspect := l.ReceiveElsewhere(at(9))
	require.False(t, newlySuspect, "the stream is new")
	l, newlySuspect = l.ReceiveElsewhere(at(10))
	require.True(t, newlySuspect)
	l, newlySuspect = l.ReceiveElsewhere(at(12))
	require.False(t, newlySuspect, "it is already suspect")
	require.Equal(t, at(10), l.SuspectAt)
	l, newlySuspect = l.Receive(at(13)).ReceiveElsewhere(at(14))
	require.True(t, newlySuspect)
	require.Equal(t, at(14), l.SuspectAt)
}
