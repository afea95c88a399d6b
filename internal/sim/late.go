package sim

import (
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// uptime is what a clock that starts with the VM's boot shows when the agent starts.
const uptime = 20 * time.Second

// now is the agent's clock. With Quirks.Clock1970 it shows whole seconds since the VM
// booted, so that the reports of all boots have the same times.
func (a *Agent) now() time.Time {
	if !a.cfg.Quirks.Clock1970 {
		return time.Now()
	}
	return time.Unix(0, 0).UTC().Add(uptime + time.Since(a.bootedAt).Truncate(time.Second))
}

// beatLate sends h after one or two regular heartbeats have overtaken it, by the route that
// it would have taken immediately.
func (s *stream) beatLate(h *commands.Heartbeat) {
	a, made, overHTTP := s.agent, s.agent.now(), s.broken
	s.agenda.after(a.cfg.Timing.Heartbeat+a.phase(), func(s *stream) error {
		a.counters.lateBeats.Add(1)
		if overHTTP {
			s.postHeartbeat(h, made)
		} else {
			s.deliver(h, made)
		}
		return nil
	})
}

// startAgain repeats vm_started over HTTP although nothing has started.
func (s *stream) startAgain() error {
	s.falseStart = true
	s.outbox.add(report{routeEvents, s.agent.startedEvent(), &s.agent.counters.events})
	return nil
}
