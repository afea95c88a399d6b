package dispatch

import (
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// liveness is what a session knows of its agent. The reader of the stream writes it,
// and the sweeper reads it.
type liveness struct {
	mu    sync.Mutex
	state fleet.Liveness
}

// opened begins with a session that was opened now.
func (l *liveness) opened(now time.Time) {
	l.state = fleet.Liveness{OpenedAt: now, LastMessageAt: now}
}

// note applies a change to the state.
func (l *liveness) note(change func(fleet.Liveness) fleet.Liveness) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = change(l.state)
}

func (l *liveness) event(kind string) {
	l.note(func(v fleet.Liveness) fleet.Liveness { return v.ReceiveEvent(kind) })
}

// reportedElsewhere notes a report over HTTP, and returns whether it makes the stream
// newly suspect.
func (l *liveness) reportedElsewhere(now time.Time) (news bool) {
	l.note(func(v fleet.Liveness) fleet.Liveness {
		v, news = v.ReceiveElsewhere(now)
		return v
	})
	return news
}

// current returns what is known now.
func (l *liveness) current() fleet.Liveness {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// endSilent ends the sessions whose agents are gone as of now.
func (d *Dispatcher) endSilent(now time.Time) {
	for _, s := range d.registry.sessions() {
		if s.backlog.lag() > 0 {
			continue // it is not read: what it sent is not known
		}
		if err := s.alive.current().Gone(now); err != nil {
			s.end(err)
		}
	}
}

// suspect notes that the VM reported over HTTP, which suggests that its stream is down.
func (d *Dispatcher) suspect(vm fleet.VMID) {
	s := d.registry.session(vm)
	if s == nil || !s.alive.reportedElsewhere(d.Clock()) {
		return
	}
	d.limited(s.log, troubleSuspect, vm).Info("stream suspect: its agent reports over HTTP")
}
