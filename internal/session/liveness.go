package session

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// arrive counts and stamps a message that was read just now: it is judged by that time,
// however long it takes to be stored.
func (s *Session) arrive(kind MessageKind) time.Time {
	s.registry.metrics.received[kind].Inc()
	return s.stamp(fleet.Liveness.Receive)
}

// arriveHeartbeat is arrive for a heartbeat.
func (s *Session) arriveHeartbeat() time.Time {
	s.registry.metrics.heartbeats.Inc()
	var before time.Time
	at := s.stamp(func(l fleet.Liveness, at time.Time) fleet.Liveness {
		before = l.LastHeartbeatAt
		return l.Receive(at).ReceiveHeartbeat(at)
	})
	if !before.IsZero() {
		s.registry.metrics.heartbeatGap.Observe(at.Sub(before).Seconds())
	}
	return at
}

// stamp returns the time of receipt of a message and applies change, with that time, to
// what is known of the agent. The clock does not step between the two.
func (s *Session) stamp(change func(fleet.Liveness, time.Time) fleet.Liveness) time.Time {
	r := s.registry
	r.times.mu.Lock()
	defer r.times.mu.Unlock()
	at := r.times.next(r.Clock())
	s.liveness = change(s.liveness, at)
	return at
}

// noteLiveness applies change to what is known of the agent.
func (s *Session) noteLiveness(change func(fleet.Liveness) fleet.Liveness) {
	s.registry.times.mu.Lock()
	defer s.registry.times.mu.Unlock()
	s.liveness = change(s.liveness)
}

// currentLiveness returns what is known of the agent now.
func (s *Session) currentLiveness() fleet.Liveness {
	s.registry.times.mu.Lock()
	defer s.registry.times.mu.Unlock()
	return s.liveness
}

// EndSilent ends the sessions whose agents are gone as of now.
func (r *Registry) EndSilent(now time.Time) {
	for _, s := range r.sessions.all() {
		if s.backlog.lag() > 0 {
			continue // it is not being read: what the agent has sent is not known
		}
		if err := s.currentLiveness().Gone(now); err != nil {
			s.end(err)
		}
	}
}

// suspect records that the VM reported over HTTP, which suggests that its stream is down.
func (r *Registry) suspect(vm fleet.VMID) {
	s := r.sessions.of(vm)
	if s == nil {
		return
	}
	var changed bool
	s.noteLiveness(func(l fleet.Liveness) fleet.Liveness {
		l, changed = l.ReceiveElsewhere(r.Clock())
		return l
	})
	if changed {
		r.limited(s.log, logSuspect, vm).Info("stream suspect: its agent reports over HTTP")
	}
}

// Live returns what is known of the newest session of a VM; the zero Live when it has
// none. It takes no lock of a session.
func (r *Registry) Live(vm fleet.VMID) fleet.Live {
	s := r.sessions.of(vm)
	if s == nil {
		return fleet.Live{}
	}
	// The ack may be in the backlog: the message that was read last may have arrived before it.
	arrived := s.currentLiveness().LastMessageAt.Add(-s.backlog.lag())
	return fleet.Live{Epoch: s.epoch, Written: s.lastWritten(), LastMessageAt: arrived}
}

// OldestUnstored returns when the oldest report arrived that was read and is not stored
// yet, or now if there is none. Deadlines are judged as of then, since it may be the ack;
// whatever follows it in its stream arrived later.
func (r *Registry) OldestUnstored(now time.Time) time.Time {
	return r.beats.oldest(r.unstored.oldest(now))
}
