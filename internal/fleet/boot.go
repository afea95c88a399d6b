package fleet

import (
	"slices"
	"time"
)

const (
	// latest is how long after a later report an agent's report may be received: agents
	// send from several goroutines and over two routes. Agents whose clocks differ by
	// more from one report to the next have set them.
	latest = 2 * time.Minute
	// latestStart is the same for a report that VM has started, which is repeated until
	// it is acknowledged.
	latestStart = 10 * time.Minute
	// slowest is how much longer a heartbeat over HTTP may take than the one before.
	slowest = time.Minute
	// plausibleClock is how far an agent's clock may be off for its order of reports to
	// say something about the boots: some begin in 1970 at each.
	plausibleClock = 24 * time.Hour
	// leastRun is how long a runner runs after its registration, at least, if that was good.
	leastRun = time.Minute
	// leastBoot is how long a boot lasts, at least, if no session began or ended in it.
	leastBoot = time.Minute
)

// startsIn reports whether an agent that has this miglet_state was just started.
// Agents never return to these states.
func startsIn(status string) bool {
	return status == StatusInitializing || status == StatusConnecting || status == StatusReady
}

// sentBefore reports whether the agent sent something in an earlier second than something
// else, since on a stream agents give whole seconds, and within this time before it.
func sentBefore(sent, other time.Time, within time.Duration) bool {
	behind := other.Truncate(time.Second).Sub(sent)
	return !sent.IsZero() && !other.IsZero() && behind > 0 && behind <= within
}

// Late reports whether a heartbeat was received after one that its agent sent later,
// or long after it was sent: it proves nothing. The times of an agent whose clock is far
// off prove neither.
func (v VM) Late(h Heartbeat) bool {
	if h.SentAt.IsZero() || v.BeatSentAt.IsZero() || h.ReceivedAt.Sub(h.SentAt).Abs() >= plausibleClock {
		return false
	}
	took, usual := h.ReceivedAt.Sub(h.SentAt), v.LastHeartbeatAt.Sub(v.BeatSentAt)
	slow := h.Via == HTTP && took-usual > slowest && took-usual < plausibleClock
	return slow || sentBefore(h.SentAt, v.BeatSentAt, latest)
}

// begun reports whether anything was seen in this boot that an agent does not do before
// it reports this state; empty for vm_started. After a failed attempt it may still be
// ready, as it may be without one.
func (v VM) begun(status string) bool {
	g := v.Registration
	tried := g.State == Requested || g.State == Registered ||
		g.State == RegFailed && !g.RequestedAt.IsZero() && status != StatusReady
	return tried || v.Job != nil || !v.SpentAt.IsZero() || v.Status != "" && !startsIn(v.Status)
}

// observeBoot applies a report that only an agent makes which was just started. It shows
// a new boot only after something that an agent does later. On a stream that is a newer
// session than the one on which the agent is known to be in this boot. Over HTTP it
// changes nothing for such a session: its successor takes it up.
func (r *reduction) observeBoot(o Origin, status string, sentAt time.Time) {
	v := r.vm()
	known := v.Registration.Epoch
	plausible := o.ReceivedAt.Sub(o.SentAt).Abs() < plausibleClock
	repeated := !sentAt.IsZero() && sentAt.Equal(v.StartedAt)
	switch {
	case !v.begun(status), o.ReceivedAt.Before(v.Registration.ProvenAt), o.Via == Stream && o.Epoch <= known:
	case plausible && (repeated || sentBefore(o.SentAt, v.EvidenceSentAt, latestStart)):
	case o.Via == HTTP && (v.Connected && v.Epoch <= known || v.Job != nil && v.Epoch > 0):
		v.BootSeenAt = o.ReceivedAt
	default:
		r.boot(o.ReceivedAt, sentAt)
	}
}

// boot begins a new boot, in which nothing has been registered yet. Boots that come too
// fast are of several VMs that have the same id.
func (r *reduction) boot(now, startedAt time.Time) {
	v := r.vm()
	if !v.mayBoot(now) {
		if v.Registration.State != RegFailed { // else it is one that fails in a loop
			v.ContestedAt, v.BootSeenAt = now, now // it may be one, after all
			r.notice(NoticeContested)
		}
		return
	}
	attempting, crashed := r.attempting(), v.crashedEarly()
	*v = v.reboot(startedAt, now)
	g := &v.Registration
	switch {
	case attempting:
		r.failAttempt(restartedUnregistered, noTime)
	case crashed: // the proof was none: GitHub may have rejected the runner
		g.Failures, g.Crashes = g.Crashes, g.Crashes+1
		r.failAttempt("its runner crashed as soon as it was registered", noTime)
	default:
		g.Crashes = 0
	}
	*g = g.tryAgain()
	r.notice(NoticeBooted)
}

// crashedEarly reports whether the runner of this boot crashed right after it had
// registered.
func (v VM) crashedEarly() bool {
	return v.Registration.State == Registered && !v.CrashedAt.IsZero() && v.CrashedAt.Sub(v.Registration.ProvenAt) < leastRun
}

// mayBoot reports whether a new boot counts: at most one in a session or in a minute.
// Beyond that several VMs have the same id, and it is not registered for now.
func (v VM) mayBoot(now time.Time) bool {
	return later(v.ConnectedAt, v.DisconnectedAt).After(v.BootedAt) || now.Sub(v.BootedAt) >= leastBoot
}

// takeUpBoot begins the boot that was seen when it could not begin. It changes nothing
// while it still cannot.
func (r *reduction) takeUpBoot() {
	v := r.vm()
	if v.BootSeenAt.IsZero() || !v.mayBoot(r.now) {
		return
	}
	if v.begun("") && !r.registering() {
		r.boot(r.now, noTime)
	}
	v.BootSeenAt = noTime
}

// reboot is v at the beginning of its next boot.
func (v VM) reboot(startedAt, now time.Time) VM {
	v.Boot++
	v.StartedAt, v.BootedAt = startedAt, now
	v.Runner, v.Job = nil, nil
	v.SpentAt, v.CrashedAt, v.EvidenceSentAt, v.BootSeenAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !startsIn(v.Status) {
		v.Status = ""
	}
	return v
}

// contestedUntil is until when the VM is not registered, because several seem to have
// its id.
func (v VM) contestedUntil() time.Time {
	if v.ContestedAt.IsZero() {
		return time.Time{}
	}
	return v.ContestedAt.Add(leastBoot)
}

// restartAcked notes that an agent whose runner was registered has answered a
// register_runner: only one that was started anew reads commands. It has the
// configuration now, or has refused it.
func (r *reduction) restartAcked(c Command) {
	v := r.vm()
	*v = v.reboot(time.Time{}, r.now)
	r.requested(c)
	r.notice(NoticeBooted)
	if !c.Ack.Success {
		r.registerRunnerEnded(c)
	}
}

// probe has a register_runner sent to an agent that was registered and has shown no
// sign of its runner on this session. If the agent still is, it does not read it.
func (r *reduction) probe() {
	v := r.vm()
	v.Registration.ProbeAt = time.Time{}
	switch {
	case !v.Connected || v.Registration.State != Registered:
	case v.Job != nil:
		v.Registration.ProbeAt = r.now.Add(v.probeDelay())
	case slices.ContainsFunc(r.State.Commands, Command.NeedsToken): // an operator's shows the same
	default:
		c := r.rules.registerRunner(r.vmID, r.now)
		r.accept(c)
		r.vm().Registration.Probe = c.ID
	}
}

// The time without a sign of the runner after which a probe is sent: twice the
// interval of the VM's heartbeats, within these bounds.
const (
	leastProbeDelay = 30 * time.Second
	mostProbeDelay  = 2 * time.Minute
)

func (v VM) probeDelay() time.Duration {
	return min(max(2*v.BeatInterval, leastProbeDelay), mostProbeDelay)
}

// endProbe takes back what was to show whether the agent has lost its runner: the
// session that it was sent on is over.
func (r *reduction) endProbe() {
	g := &r.vm().Registration
	g.ProbeAt = time.Time{}
	if c, ok := r.State.Command(g.Probe); ok && !c.State.Terminal() {
		r.put(c.end(Cancelled, "taken back: its session is over, and the next one shows whether the runner is still registered", r.now), r.now)
	}
	r.vm().Registration.Probe = ""
}
