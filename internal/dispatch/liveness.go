package dispatch

import (
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// liveness is what a session knows of its agent. The reader of the stream writes it,
// and the sweeper reads it.
type liveness struct {
	mu sync.Mutex
	is fleet.Liveness
}

// opened begins with a session that was opened now.
func (l *liveness) opened(now time.Time) {
	l.is = fleet.Liveness{OpenedAt: now, LastMessageAt: now}
}

// note changes it.
func (l *liveness) note(change func(fleet.Liveness) fleet.Liveness) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is = change(l.is)
}

func (l *liveness) received(at time.Time) {
	l.note(func(is fleet.Liveness) fleet.Liveness { return is.Received(at) })
}

func (l *liveness) beat(at time.Time) {
	l.note(func(is fleet.Liveness) fleet.Liveness { return is.Beat(at) })
}

func (l *liveness) event(kind string) {
	l.note(func(is fleet.Liveness) fleet.Liveness { return is.Event(kind) })
}

// reportedElsewhere returns whether a report over HTTP makes the stream suspect that
// was not.
func (l *liveness) reportedElsewhere(now time.Time) (news bool) {
	l.note(func(is fleet.Liveness) fleet.Liveness {
		is, news = is.ReportedElsewhere(now)
		return is
	})
	return news
}

// now returns what is known now.
func (l *liveness) now() fleet.Liveness {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is
}

// endSilent ends the sessions whose agents are gone as of now.
func (d *Dispatcher) endSilent(now time.Time) {
	for _, s := range d.registry.sessions() {
		if err := s.alive.now().Gone(now); err != nil {
			s.end(err)
		}
	}
}

// suspect notes that the VM reported over HTTP: that is no sign that its stream is
// up, rather the opposite.
func (d *Dispatcher) suspect(vm fleet.VMID) {
	s := d.registry.session(vm)
	if s == nil || !s.alive.reportedElsewhere(d.Clock()) {
		return
	}
	d.limited(s.log, troubleSuspect, vm).Info("stream suspect: its agent reports over HTTP")
}
