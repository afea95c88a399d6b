package fleet

import (
	"fmt"
	"time"
)

// A ping reveals a dead link, but behind a proxy that terminates HTTP/2 the proxy answers
// it. There only the silence of an agent shows that it is gone.
const (
	// missedBeats is how many heartbeats of the observed interval an agent may miss,
	// and leastSilence how long it may be silent in any case.
	missedBeats  = 3
	leastSilence = 45 * time.Second
	// suspectFor is how long an agent that reports over HTTP may be silent on its stream,
	// or four thirds of its interval if that is longer: agents report over HTTP when the
	// stream is down on their side.
	suspectFor = 15 * time.Second
	// newStream is the age of a stream below which such a report means nothing: at its
	// start an agent reports over HTTP while it opens its stream.
	newStream = 10 * time.Second
)

// ErrSilent ends a session whose agent appears to be gone without having closed its
// stream. It wraps ErrUnavailable: an agent that is still there connects again.
var ErrSilent = fmt.Errorf("%w: nothing was received on the stream in time", ErrUnavailable)

// Liveness is what the messages of a session show of whether its agent is still there.
// OpenedAt and LastMessageAt must be set at the start.
type Liveness struct {
	OpenedAt, LastMessageAt time.Time
	// LastBeatAt is when the latest heartbeat arrived, zero for none, and Interval the
	// time between heartbeats, as observed; zero before there were two.
	LastBeatAt time.Time
	Interval   time.Duration
	// SuspectAt is when the agent first reported over HTTP since its last message.
	SuspectAt time.Time
	// InJob is whether a job has begun, and no heartbeat has come since: some agents
	// send none then.
	InJob bool
}

// Receive notes that a message arrived.
func (l Liveness) Receive(at time.Time) Liveness {
	l.LastMessageAt = at
	return l
}

// ReceiveHeartbeat notes a heartbeat. State changes send some before their time, so the longest
// gap counts, and less with each that is shorter.
func (l Liveness) ReceiveHeartbeat(at time.Time) Liveness {
	if !l.LastBeatAt.IsZero() {
		l.Interval = longestGap(l.Interval, at.Sub(l.LastBeatAt))
	}
	l.LastBeatAt, l.InJob = at, false
	return l
}

// longestGap returns the longest of the gaps between heartbeats, of which those before
// count less with each one since.
func longestGap(before, gap time.Duration) time.Duration { return max(gap, before*31/32) }

// ReceiveEvent notes what an event of this type shows of jobs.
func (l Liveness) ReceiveEvent(kind string) Liveness {
	switch kind {
	case EventJobStarted:
		l.InJob = true
	case EventJobCompleted:
		l.InJob = false
	}
	return l
}

// ReceiveElsewhere notes a report over HTTP, which suggests that the stream is down.
// It returns whether that makes the stream newly suspect.
func (l Liveness) ReceiveElsewhere(now time.Time) (Liveness, bool) {
	if now.Sub(l.OpenedAt) < newStream || l.suspect() {
		return l, false
	}
	l.SuspectAt = now
	return l, true
}

func (l Liveness) suspect() bool { return l.SuspectAt.After(l.LastMessageAt) }

// Gone returns an error that wraps ErrSilent if the agent counts as gone, else nil.
func (l Liveness) Gone(now time.Time) error {
	if l.suspect() && now.Sub(l.SuspectAt) > max(suspectFor, l.Interval*4/3) {
		return fmt.Errorf("%w, while the agent reported over HTTP", ErrSilent)
	}
	silent := now.Sub(l.LastMessageAt)
	if l.Interval > 0 && !l.InJob && silent > max(leastSilence, missedBeats*l.Interval) {
		return fmt.Errorf("%w: silent for %s, with heartbeats every %s before",
			ErrSilent, silent.Round(time.Second), l.Interval.Round(time.Second))
	}
	return nil
}
