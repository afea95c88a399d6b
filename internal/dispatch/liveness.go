package dispatch

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
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
// as its messages show. It wraps fleet.ErrUnavailable: an agent that is there
// connects again.
var ErrSilent = fmt.Errorf("%w: nothing was received on the stream in time", fleet.ErrUnavailable)

// liveness is what a session knows of its agent. The reader of the stream writes
// it, and the sweeper reads it. Times are Unix nanoseconds, zero for never.
type liveness struct {
	lastMessageAt atomic.Int64 // the latest message
	beatAt        atomic.Int64 // the latest heartbeat
	interval      atomic.Int64 // between heartbeats, as observed; zero before there were two
	suspect       atomic.Int64 // when it was first suspect
	inJob         atomic.Bool  // a job began, and no heartbeat has come since: some agents send none then
}

// received notes that a message arrived.
func (l *liveness) received(at time.Time) { l.lastMessageAt.Store(at.UnixNano()) }

// beat notes a heartbeat. State changes send some before their time, so the
// longest gap counts, and less with each that is shorter.
func (l *liveness) beat(at time.Time) {
	l.inJob.Store(false)
	now := at.UnixNano()
	if before := l.beatAt.Swap(now); before != 0 {
		l.interval.Store(max(now-before, l.interval.Load()*31/32))
	}
}

// event notes what an event says of jobs.
func (l *liveness) event(kind string) {
	switch kind {
	case fleet.EventJobStarted:
		l.inJob.Store(true)
	case fleet.EventJobCompleted:
		l.inJob.Store(false)
	}
}

// latest returns when the latest message arrived; zero for none.
func (l *liveness) latest() time.Time {
	at := l.lastMessageAt.Load()
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}

// reportedElsewhere notes a report over HTTP, and returns whether that makes the
// stream suspect that was not.
func (l *liveness) reportedElsewhere(now, openedAt time.Time) bool {
	if now.Sub(openedAt) < newStream {
		return false
	}
	since := l.suspect.Load()
	return since <= l.lastMessageAt.Load() && l.suspect.CompareAndSwap(since, now.UnixNano())
}

// gone returns an error that wraps ErrSilent if the agent is to be taken for gone.
func (l *liveness) gone(now time.Time) error {
	at := now.UnixNano()
	last, suspect := l.lastMessageAt.Load(), l.suspect.Load()
	interval := time.Duration(l.interval.Load())
	if suspect > last && time.Duration(at-suspect) > max(suspectFor, interval*4/3) {
		return fmt.Errorf("%w, while the agent reported over HTTP", ErrSilent)
	}
	silent := time.Duration(at - last)
	if interval > 0 && !l.inJob.Load() && silent > max(leastSilence, missedBeats*interval) {
		return fmt.Errorf("%w: silent for %s, with heartbeats every %s before",
			ErrSilent, silent.Round(time.Second), interval.Round(time.Second))
	}
	return nil
}

// endSilent ends the sessions whose agents are gone as of now.
func (d *Dispatcher) endSilent(now time.Time) {
	for _, s := range d.registry.sessions() {
		if err := s.alive.gone(now); err != nil {
			s.end(err)
		}
	}
}

// suspect notes that the VM reported over HTTP: that is no sign that its stream is
// up, rather the opposite.
func (d *Dispatcher) suspect(vm fleet.VMID) {
	s := d.registry.session(vm)
	if s == nil || !s.alive.reportedElsewhere(d.Clock(), s.openedAt) {
		return
	}
	d.limited(s.log, troubleSuspect, vm).Info("stream suspect: its agent reports over HTTP")
}
