package fleet

import "time"

// VM is one machine of the fleet as the controller knows it.
type VM struct {
	ID           VMID   `json:"id"`
	Pool         string `json:"pool,omitempty"`
	Org          string `json:"org,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`

	// Connected is whether a session is live.
	Connected bool `json:"connected,omitempty"`
	// Epoch is the VM's newest session, live or ended.
	Epoch Epoch `json:"epoch,omitempty"`
	// Boot counts the starts of the VM that its reports have shown.
	Boot int64 `json:"boot"`
	// StartedAt is the agent's time in the vm_started event of this boot; a repeated event
	// has the same time.
	StartedAt time.Time `json:"started_at,omitzero"`
	// BootedAt is when this boot was detected; zero for the first. Heartbeats are stored
	// with a delay, so one from before the boot may be applied after it.
	BootedAt time.Time `json:"booted_at,omitzero"`
	// BootSeenAt is when a new boot was observed that could not begin yet: the next session
	// or poll begins it. ContestedAt is when boots last followed each other too quickly for
	// a single VM.
	BootSeenAt  time.Time `json:"boot_seen_at,omitzero"`
	ContestedAt time.Time `json:"contested_at,omitzero"`
	// MovesOn is whether the agent was ever seen in a state other than the initial ones.
	// The restart of an agent that reports no other state cannot be detected.
	MovesOn bool `json:"moves_on,omitempty"`
	// EvidenceSentAt is the agent's time in the last report about its runner or job, of
	// this boot.
	EvidenceSentAt time.Time `json:"evidence_sent_at,omitzero"`

	// Status is the agent's miglet_state.
	Status       string       `json:"status,omitempty"`
	Runner       *Runner      `json:"runner,omitempty"`
	Job          *Job         `json:"job,omitempty"`
	Health       *Health      `json:"health,omitempty"`
	Machine      *Machine     `json:"machine,omitempty"`
	Registration Registration `json:"registration"`
	// SpentAt is when the job of an ephemeral runner ended: such a runner takes no other.
	// CrashedAt is when the runner ended with an error. Both are of this boot.
	SpentAt   time.Time `json:"spent_at,omitzero"`
	CrashedAt time.Time `json:"crashed_at,omitzero"`
	// Persistent is whether the runner was seen to take more than one job, or the agent
	// reports the state job_running, which only agents with persistent runners do.
	Persistent bool `json:"persistent,omitempty"`

	FirstSeenAt     time.Time `json:"first_seen_at"`
	LastSeenAt      time.Time `json:"last_seen_at"`
	ConnectedAt     time.Time `json:"connected_at,omitzero"`
	DisconnectedAt  time.Time `json:"disconnected_at,omitzero"`
	LastHeartbeatAt time.Time `json:"last_heartbeat_at,omitzero"`
	// HeartbeatSentAt is the agent's time in the last heartbeat, and HeartbeatInterval the
	// observed time between heartbeats; zero before the second on one session.
	HeartbeatSentAt   time.Time     `json:"beat_sent_at,omitzero"`
	HeartbeatInterval time.Duration `json:"beat_interval,omitempty"`
	// LastAckAt is when the agent last acked a command.
	LastAckAt time.Time `json:"last_ack_at,omitzero"`

	// TokenWait is set while its register_runner waits for a token.
	TokenWait TokenWait `json:"token_wait,omitzero"`
	// AwaitsRunnerUntil is until when a register_runner that was sent on an earlier session
	// waits for the agent to report its runner: the ack and the proof may have been lost.
	AwaitsRunnerUntil time.Time `json:"awaits_runner_until,omitzero"`
	// DueAt is when a Tick of the VM next has an effect; zero for never. Reduce derives it
	// from the other times.
	DueAt time.Time `json:"due_at,omitzero"`
}

// ReadsNoCommands reports whether a command is likely to be left unread: today's agents
// read no commands once their runner is registered. An agent that has acked one since does.
func (v VM) ReadsNoCommands() bool {
	return v.Registration.State == Registered && !v.LastAckAt.After(v.Registration.ProvenAt)
}

// NewVM returns a VM that was first seen now.
func NewVM(id VMID, now time.Time) VM {
	return VM{
		ID: id, Boot: 1, FirstSeenAt: now, LastSeenAt: now,
		Registration: Registration{State: Unregistered},
	}
}

// OpenSession gives the VM a new session.
func (v VM) OpenSession(h Hello, now time.Time) VM {
	v.Pool, v.Org, v.AgentVersion = h.Pool, h.Org, h.AgentVersion
	v.Connected, v.ConnectedAt, v.LastSeenAt = true, now, now
	v = v.clearSessionTimers()
	v.Epoch++
	return v
}

// clearSessionTimers returns v without the timers that apply to a session only.
func (v VM) clearSessionTimers() VM {
	v.AwaitsRunnerUntil, v.TokenWait.RetryAt, v.Registration.ProbeAt = time.Time{}, time.Time{}, time.Time{}
	return v
}

// nextTickAt returns when a Tick next has an effect; zero for never.
func (v VM) nextTickAt() time.Time {
	g, due := v.Registration, time.Time{}
	if g.State == Requested {
		due = earliest(g.CheckAt, g.GraceUntil)
	}
	if !v.Connected {
		return due
	}
	due = earliest(due, v.AwaitsRunnerUntil, v.TokenWait.RetryAt, g.ProbeAt)
	if at, wanted := v.registerAt(); wanted {
		due = earliest(due, at)
	}
	return due
}

// earliest returns the earliest time that is not zero, or zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// CloseSession ends the session with this epoch. It does nothing if that is not the newest.
func (v VM) CloseSession(e Epoch, now time.Time) VM {
	if v.Connected && v.Epoch == e {
		v = v.clearSessionTimers()
		v.Connected, v.DisconnectedAt = false, now
	}
	return v
}

// MarkSeen records that the VM sent a report, and updates its pool and organization from
// it.
func (v VM) MarkSeen(o Origin) VM {
	v.LastSeenAt = o.ReceivedAt
	if o.Pool != "" {
		v.Pool = o.Pool
	}
	if o.Org != "" {
		v.Org = o.Org
	}
	return v
}

// Stale reports whether a report comes from a session that has been superseded.
func (v VM) Stale(o Origin) bool { return o.Via == Stream && o.Epoch < v.Epoch }

// ApplyHeartbeat applies a heartbeat. The caller must make sure that it is not Stale. Of a
// late heartbeat only the time is used.
func (v VM) ApplyHeartbeat(h Heartbeat, late bool) VM {
	if h.Via == Stream && v.LastHeartbeatAt.After(v.ConnectedAt) {
		v.HeartbeatInterval = longestGap(v.HeartbeatInterval, h.ReceivedAt.Sub(v.LastHeartbeatAt))
	}
	v = v.MarkSeen(h.Origin)
	v.LastHeartbeatAt = h.ReceivedAt
	if !sentBefore(h.SentAt, v.HeartbeatSentAt, maxReordering) { // otherwise the next late one would not be recognized
		v.HeartbeatSentAt = h.SentAt
	}
	if late {
		return v
	}
	if h.Status != "" {
		v.Status = h.Status
	}
	if h.Health != nil {
		v.Health = h.Health
	}
	v.Persistent = v.Persistent || h.Status == StatusJobRunning
	v = v.updateJob(&h)
	switch {
	case h.Runner != nil:
		v.Runner = h.Runner
	case h.RunnerState != "":
		r := Runner{}
		if v.Runner != nil {
			r = *v.Runner
		}
		r.State = h.RunnerState
		v.Runner = &r
	}
	if !v.CrashedAt.IsZero() {
		v.Runner = v.Runner.offline()
	}
	return v
}

// restore applies the last reported load and the time of the last ack, where the VM's
// record lacks them.
func (v VM) restore(last *Heartbeat, ackedAt time.Time) VM {
	if last != nil && last.ReceivedAt.After(v.LastHeartbeatAt) {
		interval := v.HeartbeatInterval // the heartbeats in between are not known
		v = v.WithLoad(v.ApplyHeartbeat(*last, false))
		v.HeartbeatInterval = interval
	}
	v.LastSeenAt, v.LastAckAt = later(v.LastSeenAt, ackedAt), later(v.LastAckAt, ackedAt)
	return v
}

// WithLoad returns v with o's load and the times at which it was last seen: the fields that
// every heartbeat and ack changes.
func (v VM) WithLoad(o VM) VM {
	v.LastSeenAt, v.LastHeartbeatAt, v.LastAckAt, v.Health = o.LastSeenAt, o.LastHeartbeatAt, o.LastAckAt, o.Health
	v.HeartbeatSentAt, v.HeartbeatInterval = o.HeartbeatSentAt, o.HeartbeatInterval
	return v
}

// Differs reports whether v and o differ in what watchers of the fleet see: in anything but
// the fields that every heartbeat changes, and the timers.
func (v VM) Differs(o VM) bool {
	if !v.Runner.equal(o.Runner) || !v.Job.equal(o.Job) || !v.Machine.equal(o.Machine) {
		return true
	}
	v.Runner, v.Job, v.Machine, v.DueAt, v.TokenWait.RetryAt = o.Runner, o.Job, o.Machine, o.DueAt, o.TokenWait.RetryAt
	g := &v.Registration
	g.CheckAt, g.GraceUntil, g.ProbeAt = o.Registration.CheckAt, o.Registration.GraceUntil, o.Registration.ProbeAt
	return v.WithLoad(o) != o
}
