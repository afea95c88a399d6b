package fleet

import (
	"fmt"
	"time"
)

// A ping detects a dead link, but a proxy that terminates HTTP/2 answers pings itself.
// Behind such a proxy only the silence of an agent shows that it is gone.
const (
	// missedHeartbeats is how many heartbeats of the observed interval an agent may miss, and
	// minSilence how long it may be silent in any case.
	missedHeartbeats = 3
	minSilence       = 45 * time.Second
	// suspectFor is how long an agent that reports over HTTP may be silent on its stream,
	// or four thirds of its heartbeat interval if that is longer: agents report over HTTP
	// when the stream is down on their side.
	suspectFor = 15 * time.Second
	// newStreamAge is the age up to which a stream is not suspected because of such a report:
	// an agent reports over HTTP while it opens its stream.
	newStreamAge = 10 * time.Second
)

// ErrSilent ends a session whose agent appears to be gone without having closed its
// stream. It wraps ErrUnavailable: an agent that is still there connects again.
var ErrSilent error = &unavailable{"nothing was received on the stream in time"}

// Liveness is the evidence that a session's agent is still connected. OpenedAt and
// LastMessageAt must be set at the start.
type Liveness struct {
	OpenedAt, LastMessageAt time.Time
	// LastHeartbeatAt is when the latest heartbeat arrived, zero for none. Interval is the
	// observed time between heartbeats, zero before the second.
	LastHeartbeatAt time.Time
	Interval        time.Duration
	// SuspectAt is when the agent first reported over HTTP since its last message.
	SuspectAt time.Time
	// InJob is whether a job has begun and no heartbeat has arrived since: some agents send
	// none during a job.
	InJob bool
}

// Receive records that a message arrived.
func (l Liveness) Receive(at time.Time) Liveness {
	l.LastMessageAt = at
	return l
}

// ReceiveHeartbeat records a heartbeat. Agents send extra heartbeats when their state
// changes, so the interval is the longest gap, which decays with each shorter one.
func (l Liveness) ReceiveHeartbeat(at time.Time) Liveness {
	if !l.LastHeartbeatAt.IsZero() {
		l.Interval = longestGap(l.Interval, at.Sub(l.LastHeartbeatAt))
	}
	l.LastHeartbeatAt, l.InJob = at, false
	return l
}

// longestGap returns the longest gap between heartbeats; earlier gaps decay with each
// heartbeat.
func longestGap(before, gap time.Duration) time.Duration { return max(gap, before*31/32) }

// ReceiveEvent records what an event of this type shows about jobs.
func (l Liveness) ReceiveEvent(kind string) Liveness {
	switch kind {
	case EventJobStarted:
		l.InJob = true
	case EventJobCompleted:
		l.InJob = false
	}
	return l
}

// ReceiveElsewhere records a report over HTTP, which suggests that the stream is down. It
// returns whether that makes the stream newly suspect.
func (l Liveness) ReceiveElsewhere(now time.Time) (Liveness, bool) {
	if now.Sub(l.OpenedAt) < newStreamAge || l.suspect() {
		return l, false
	}
	l.SuspectAt = now
	return l, true
}

func (l Liveness) suspect() bool { return l.SuspectAt.After(l.LastMessageAt) }

// Gone returns an error that wraps ErrSilent if the agent counts as gone, otherwise nil.
func (l Liveness) Gone(now time.Time) error {
	if l.suspect() && now.Sub(l.SuspectAt) > max(suspectFor, l.Interval*4/3) {
		return fmt.Errorf("%w, while the agent reported over HTTP", ErrSilent)
	}
	silent := now.Sub(l.LastMessageAt)
	if l.Interval > 0 && !l.InJob && silent > max(minSilence, missedHeartbeats*l.Interval) {
		return fmt.Errorf("%w: silent for %s, with heartbeats every %s before",
			ErrSilent, silent.Round(time.Second), l.Interval.Round(time.Second))
	}
	return nil
}
