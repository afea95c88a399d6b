package fleet

import (
	"slices"
	"time"
)

const (
	// maxReordering is by how much an agent's reports may arrive out of order: agents send
	// from several goroutines and over two routes. A larger difference means that the
	// agent's clock was set.
	maxReordering = 2 * time.Minute
	// maxStartReordering is the same for a vm_started event, which is repeated until it is
	// acknowledged.
	maxStartReordering = 10 * time.Minute
	// maxExtraDelay is by how much longer a heartbeat over HTTP may take than the one before
	// it.
	maxExtraDelay = time.Minute
	// plausibleClock is how far an agent's clock may be off for the order of its reports to
	// be evidence about boots: some clocks start in 1970 at each boot.
	plausibleClock = 24 * time.Hour
	// minRun is the minimum time for which a runner runs after a successful registration.
	minRun = time.Minute
	// minBoot is the minimum duration of a boot in which no session began or ended.
	minBoot = time.Minute
)

// isStartState reports whether an agent is in this miglet_state right after it was started.
// It never returns to one of these states, except to ready after a failed registration.
func isStartState(status string) bool {
	return status == StatusInitializing || status == StatusConnecting || status == StatusReady
}

// sentBefore reports whether a report was sent before another one, and at most this much
// earlier. It compares whole seconds, since that is what agents send on a stream.
func sentBefore(sent, other time.Time, within time.Duration) bool {
	lead := other.Truncate(time.Second).Sub(sent)
	return !sent.IsZero() && !other.IsZero() && lead > 0 && lead <= within
}

// Late reports whether a heartbeat was received after one that its agent sent later, or
// long after it was sent. A late heartbeat is not evidence. The times of an agent whose
// clock is far off are ignored.
func (v VM) Late(h Heartbeat) bool {
	if h.SentAt.IsZero() || v.HeartbeatSentAt.IsZero() || h.ReceivedAt.Sub(h.SentAt).Abs() >= plausibleClock {
		return false
	}
	took, usual := h.ReceivedAt.Sub(h.SentAt), v.LastHeartbeatAt.Sub(v.HeartbeatSentAt)
	slow := h.Via == HTTP && took-usual > maxExtraDelay && took-usual < plausibleClock
	return slow || sentBefore(h.SentAt, v.HeartbeatSentAt, maxReordering)
}

// pastState reports whether anything was observed in this boot that an agent does only after
// it has reported this state; the empty state stands for vm_started. An agent may become
// ready again after a failed attempt.
func (v VM) pastState(status string) bool {
	g := v.Registration
	tried := g.State == Requested || g.State == Registered ||
		g.State == RegFailed && !g.RequestedAt.IsZero() && status != StatusReady
	return tried || v.Job != nil || !v.SpentAt.IsZero() || v.Status != "" && !isStartState(v.Status)
}

// observeBoot applies a report that agents send only right after their start. It begins a
// new boot only if the agent was already past that state. On a stream, the report must also
// come from a newer session than the latest one that is known to be in this boot. Over HTTP,
// while that session is live or the VM runs a job, the report is only remembered: the next
// session begins the new boot.
func (r *reduction) observeBoot(o Origin, status string, sentAt time.Time) {
	v := r.vm()
	known := v.Registration.Epoch
	plausible := o.ReceivedAt.Sub(o.SentAt).Abs() < plausibleClock
	repeated := !sentAt.IsZero() && sentAt.Equal(v.StartedAt)
	switch {
	case !v.pastState(status), o.ReceivedAt.Before(v.Registration.ProvenAt), o.Via == Stream && o.Epoch <= known:
	case plausible && (repeated || sentBefore(o.SentAt, v.EvidenceSentAt, maxStartReordering)):
	case o.Via == HTTP && (v.Connected && v.Epoch <= known || v.Job != nil && v.Epoch > 0):
		v.BootSeenAt = o.ReceivedAt
	default:
		r.boot(o.ReceivedAt, sentAt)
	}
}

// boot starts a new boot, in which nothing has been registered yet. It does not if boots
// follow each other too quickly: then several VMs seem to share the id.
func (r *reduction) boot(now, startedAt time.Time) {
	v := r.vm()
	if !v.mayBoot(now) {
		if v.Registration.State != RegFailed { // otherwise it is one VM that fails in a loop
			v.ContestedAt, v.BootSeenAt = now, now // it may be one VM after all
			r.notice(NoticeContested)
		}
		return
	}
	unproven, crashed := r.awaitingProof(), v.crashedEarly()
	*v = v.reboot(startedAt, now)
	g := &v.Registration
	switch {
	case unproven:
		r.failAttempt(restartedUnregistered, noTime)
	case crashed: // so the proof does not count: GitHub may have rejected the runner
		g.Failures, g.Crashes = g.Crashes, g.Crashes+1
		r.failAttempt("its runner crashed as soon as it was registered", noTime)
	default:
		g.Crashes = 0
	}
	*g = g.inNewBoot()
	r.notice(NoticeBooted)
}

// crashedEarly reports whether the runner of this boot crashed right after it had
// registered.
func (v VM) crashedEarly() bool {
	return v.Registration.State == Registered && !v.CrashedAt.IsZero() && v.CrashedAt.Sub(v.Registration.ProvenAt) < minRun
}

// mayBoot reports whether a new boot may begin: once per session, or once per minute. More
// boots mean that several VMs share the id; then the VM is not registered for a while.
func (v VM) mayBoot(now time.Time) bool {
	return later(v.ConnectedAt, v.DisconnectedAt).After(v.BootedAt) || now.Sub(v.BootedAt) >= minBoot
}

// startPendingBoot starts the boot that was observed when it could not start. It does nothing
// while it still cannot.
func (r *reduction) startPendingBoot() {
	v := r.vm()
	if v.BootSeenAt.IsZero() || !v.mayBoot(r.now) {
		return
	}
	if v.pastState("") && !r.registerRunnerOpen() {
		r.boot(r.now, noTime)
	}
	v.BootSeenAt = noTime
}

// reboot returns v at the beginning of its next boot.
func (v VM) reboot(startedAt, now time.Time) VM {
	v.Boot++
	v.StartedAt, v.BootedAt = startedAt, now
	v.Runner, v.Job = nil, nil
	v.SpentAt, v.CrashedAt, v.EvidenceSentAt, v.BootSeenAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !isStartState(v.Status) {
		v.Status = ""
	}
	return v
}

// contestedUntil returns until when the VM is not registered because several VMs seem to
// share its id.
func (v VM) contestedUntil() time.Time {
	if v.ContestedAt.IsZero() {
		return time.Time{}
	}
	return v.ContestedAt.Add(minBoot)
}

// applyRestartAck applies the ack of a register_runner by an agent whose runner was
// registered. Such agents read commands only after a restart, so this is a new boot, in
// which the agent has the configuration or has refused it.
func (r *reduction) applyRestartAck(c Command) {
	v := r.vm()
	*v = v.reboot(time.Time{}, r.now)
	r.recordRequested(c)
	r.notice(NoticeBooted)
	if !c.Ack.Success {
		r.endRegisterRunner(c)
	}
}

// probe requests a register_runner for an agent that was registered and has not reported
// its runner on this session. An agent whose runner is still registered does not read it.
func (r *reduction) probe() {
	v := r.vm()
	v.Registration.ProbeAt = time.Time{}
	switch {
	case !v.Connected || v.Registration.State != Registered:
	case v.Job != nil:
		v.Registration.ProbeAt = r.now.Add(v.probeDelay())
	case slices.ContainsFunc(r.State.Commands, Command.NeedsToken): // an operator's command serves as the probe
	default:
		c := r.rules.registerRunner(r.vmID, r.now)
		r.accept(c)
		r.vm().Registration.Probe = c.ID
	}
}

// A probe is sent after twice the interval of the VM's heartbeats without a report about
// the runner, within these bounds.
const (
	minProbeDelay = 30 * time.Second
	maxProbeDelay = 2 * time.Minute
)

func (v VM) probeDelay() time.Duration {
	return min(max(2*v.HeartbeatInterval, minProbeDelay), maxProbeDelay)
}

// endProbe cancels the probe when the session that it was sent on has ended.
func (r *reduction) endProbe() {
	g := &r.vm().Registration
	g.ProbeAt = time.Time{}
	if c, ok := r.State.Command(g.Probe); ok && !c.State.Terminal() {
		r.put(c.end(Cancelled, "withdrawn: its session ended; the next session shows whether the runner is still registered", r.now), r.now)
	}
	r.vm().Registration.Probe = ""
}
