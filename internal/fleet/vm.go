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
	// Epoch is the VM's newest session, live or over.
	Epoch Epoch `json:"epoch,omitempty"`
	// Boot counts the starts of the VM that its reports show.
	Boot int64 `json:"boot"`
	// StartedAt is the agent's time in the vm_started event of this boot; a
	// repetition of the event has the same.
	StartedAt time.Time `json:"started_at,omitzero"`
	// BootedAt is when this boot was noticed; zero for the first. Heartbeats wait
	// to be stored, so one from before can come after.
	BootedAt time.Time `json:"booted_at,omitzero"`

	// Status is the agent's miglet_state.
	Status       string       `json:"status,omitempty"`
	Runner       *Runner      `json:"runner,omitempty"`
	Job          *Job         `json:"job,omitempty"`
	Health       *Health      `json:"health,omitempty"`
	Machine      *Machine     `json:"machine,omitempty"`
	Registration Registration `json:"registration"`

	FirstSeenAt     time.Time `json:"first_seen_at"`
	LastSeenAt      time.Time `json:"last_seen_at"`
	ConnectedAt     time.Time `json:"connected_at,omitzero"`
	DisconnectedAt  time.Time `json:"disconnected_at,omitzero"`
	LastHeartbeatAt time.Time `json:"last_heartbeat_at,omitzero"`
	// LastAckAt is when the agent last acked a command.
	LastAckAt time.Time `json:"last_ack_at,omitzero"`

	// TokenWait is set while its register_runner waits for a token.
	TokenWait TokenWait `json:"token_wait,omitzero"`
	// AwaitsRunner is whether a register_runner that was sent on an earlier session waits
	// for the agent to report its runner: the ack and the proof may have been lost.
	AwaitsRunner bool `json:"awaits_runner,omitempty"`
	// DueAt is when a Tick of the VM has something to do; zero for never.
	DueAt time.Time `json:"due_at,omitzero"`
}

// ReadsNoCommands reports whether a command is likely to be left unread: today's
// agents read none once their runner is registered. One that has acked something
// since does read them.
func (v VM) ReadsNoCommands() bool {
	return v.Registration.State == Registered && !v.LastAckAt.After(v.Registration.ProvenAt)
}

// NewVM is a VM that was first seen now.
func NewVM(id VMID, now time.Time) VM {
	return VM{
		ID: id, Boot: 1, FirstSeenAt: now, LastSeenAt: now,
		Registration: Registration{State: Unregistered},
	}
}

// SessionOpened gives the VM its next session.
func (v VM) SessionOpened(h Hello, now time.Time) VM {
	v.Pool, v.Org, v.AgentVersion = h.Pool, h.Org, h.AgentVersion
	v.Connected, v.ConnectedAt, v.LastSeenAt = true, now, now
	v = v.untimed()
	v.Epoch++
	return v
}

// untimed returns v with nothing for a Tick to do.
func (v VM) untimed() VM {
	v.AwaitsRunner, v.DueAt = false, time.Time{}
	return v
}

// SessionClosed ends the session with this epoch. A session that is not the
// newest ends without a trace.
func (v VM) SessionClosed(e Epoch, now time.Time) VM {
	if v.Connected && v.Epoch == e {
		v = v.untimed()
		v.Connected, v.DisconnectedAt = false, now
	}
	return v
}

// Seen notes that the VM reported something, and takes over the places it
// names.
func (v VM) Seen(o Origin) VM {
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

// Heartbeat takes over what the heartbeat says. The caller has made sure that
// it is not Stale. registering is whether the VM's register_runner command is
// still on its way.
func (v VM) Heartbeat(h Heartbeat, registering bool) VM {
	v = v.Seen(h.Origin)
	v.LastHeartbeatAt = h.ReceivedAt
	if h.Status != "" {
		v.Status = h.Status
	}
	if h.Health != nil {
		v.Health = h.Health
	}
	v.Job = h.Job
	switch {
	case h.ReceivedAt.Before(v.BootedAt): // what it says of the runner is over
	case h.Runner != nil:
		v.Runner = h.Runner
		v = v.runnerReported(*h.Runner, h, registering)
	case h.RunnerState != "":
		r := Runner{}
		if v.Runner != nil {
			r = *v.Runner
		}
		r.State = h.RunnerState
		v.Runner = &r
	}
	return v
}

// caughtUp takes over the load that the VM last reported and that it has acked a
// command since, where its record lacks them.
func (v VM) caughtUp(last *Heartbeat, ackedAt time.Time) VM {
	if last != nil && last.ReceivedAt.After(v.LastHeartbeatAt) {
		v = v.WithLoad(v.Heartbeat(*last, false))
	}
	v.LastSeenAt, v.LastAckAt = later(v.LastSeenAt, ackedAt), later(v.LastAckAt, ackedAt)
	return v
}

// WithLoad returns v with the times at which o was last seen, and with its load: what
// every heartbeat and ack changes.
func (v VM) WithLoad(o VM) VM {
	v.LastSeenAt, v.LastHeartbeatAt, v.LastAckAt, v.Health = o.LastSeenAt, o.LastHeartbeatAt, o.LastAckAt, o.Health
	return v
}

// Differs reports whether v and o differ in what watchers of the fleet see: in more
// than what every heartbeat changes and when a Tick is due.
func (v VM) Differs(o VM) bool {
	if !v.Runner.equal(o.Runner) || !v.Job.equal(o.Job) || !v.Machine.equal(o.Machine) {
		return true
	}
	v.Runner, v.Job, v.Machine, v.DueAt = o.Runner, o.Job, o.Machine, o.DueAt
	return v.WithLoad(o) != o
}
