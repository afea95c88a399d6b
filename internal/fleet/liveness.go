package fleet

import (
	"fmt"
	"time"
)

// A ping reveals a dead link, but behind a proxy that ends HTTP/2 it is the proxy
// that answers. There only what an agent no longer says reveals that it is gone.
const (
	// missedBeats is how many heartbeats of the observed interval an agent may miss,
	// and leastSilence how long it may be silent in any case.
	missedBeats  = 3
	leastSilence = 45 * time.Second
	// suspectFor is how long an agent that reports over HTTP may be silent on its
	// stream, or for four thirds of its interval: it does so when the stream is no
	// longer up on its side.
	suspectFor = 15 * time.Second
	// newStream is the age under which that means nothing: when it starts an agent
	// reports over HTTP while it opens its stream.
	newStream = 10 * time.Second
)

// ErrSilent ends a session whose agent has gone without closing its stream, as far
// as its messages show. It wraps ErrUnavailable: an agent that is there connects
// again.
var ErrSilent = fmt.Errorf("%w: nothing was received on the stream in time", ErrUnavailable)

// Liveness is what the messages of a session show of its agent: whether it is still
// there. It begins with OpenedAt and LastMessageAt.
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

// Received notes that a message arrived.
func (l Liveness) Received(at time.Time) Liveness {
	l.LastMessageAt = at
	return l
}

// Beat notes a heartbeat. State changes send some before their time, so the longest
// gap counts, and less with each that is shorter.
func (l Liveness) Beat(at time.Time) Liveness {
	if !l.LastBeatAt.IsZero() {
		l.Interval = max(at.Sub(l.LastBeatAt), l.Interval*31/32)
	}
	l.LastBeatAt, l.InJob = at, false
	return l
}

// Event notes what an event of this type says of jobs.
func (l Liveness) Event(kind string) Liveness {
	switch kind {
	case EventJobStarted:
		l.InJob = true
	case EventJobCompleted:
		l.InJob = false
	}
	return l
}

// ReportedElsewhere notes a report over HTTP, which is no sign that the stream is
// up, rather the opposite. It returns whether that makes a stream suspect that was
// not.
func (l Liveness) ReportedElsewhere(now time.Time) (Liveness, bool) {
	if now.Sub(l.OpenedAt) < newStream || l.suspect() {
		return l, false
	}
	l.SuspectAt = now
	return l, true
}

func (l Liveness) suspect() bool { return l.SuspectAt.After(l.LastMessageAt) }

// Gone returns an error that wraps ErrSilent if the agent is to be taken for gone.
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
