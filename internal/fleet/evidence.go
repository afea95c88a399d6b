package fleet

import "time"

// noTime is the zero time.
var noTime time.Time

// AckReceived is an agent's answer that came on the session with this epoch. It
// returns ErrNotFound when the VM has no such command, ErrNotDelivered when it was
// never sent, and ErrSuperseded when the ack arrived after a newer session was
// opened.
type AckReceived struct {
	VM    VMID
	Epoch Epoch
	Ack   Ack
}

// Subject implements Input.
func (in AckReceived) Subject() (VMID, CommandID) { return in.VM, in.Ack.CommandID }

func (in AckReceived) reduce(r *reduction) error {
	if !r.State.Known() {
		return ErrNotFound
	}
	if r.vm().Epoch != in.Epoch && !r.now.Before(r.vm().ConnectedAt) {
		return ErrSuperseded
	}
	c, err := r.named(in.Ack.CommandID)
	if err != nil {
		return err
	}
	r.Late = c.State.Terminal()
	repeated := r.Late && c.Ack != nil
	acked, err := c.MarkAcked(in.Ack, r.now)
	r.Command = acked
	if err != nil || repeated || acked.Ack == nil {
		return err // or nothing of it is stored
	}
	if r.vm().Epoch == in.Epoch {
		r.vm().LastSeenAt = r.now
	}
	restarted := acked.Type == RegisterRunner && !r.Late && acked.ID != r.vm().Registration.Probe && r.vm().ReadsNoCommands()
	r.vm().LastAckAt = r.now
	r.VMRecorded = !r.Late // when the command ended says it
	r.put(acked, r.now)
	if restarted {
		r.restartAcked(acked)
	}
	return nil
}

// EventReceived is an event. It is always stored. From a superseded session it is Stale
// and changes nothing else.
type EventReceived struct{ Event Event }

// Subject implements Input.
func (in EventReceived) Subject() (VMID, CommandID) { return in.Event.VM, "" }

func (in EventReceived) reduce(r *reduction) error {
	e := in.Event
	r.seen()
	r.Event = &e
	r.Changes = append(r.Changes, Change{At: e.ReceivedAt, Subject: e.VM, Event: r.Event})
	if r.Stale = r.vm().Stale(e.Origin); r.Stale {
		return nil
	}
	r.State.VM = r.vm().MarkSeen(e.Origin)
	if react, ok := reactions[e.Type]; ok && !r.vm().overtaken(e) {
		react(r, e)
	}
	return nil
}

// reactions are what events mean for their VM. Events of other types are only stored.
var reactions = map[string]func(*reduction, Event){
	EventVMStarted:        vmStarted,
	EventRunnerRegistered: runnerRegistered,
	EventRunnerCrashed:    runnerCrashed,
	EventJobStarted:       jobStarted,
	EventJobCompleted:     jobCompleted,
}

func vmStarted(r *reduction, e Event) {
	r.State.VM = r.vm().Describe(e)
	if r.registering() {
		r.startedUnproven(e)
	} else {
		r.observeBoot(e.Origin, "", e.SentAt)
	}
	if r.vm().StartedAt.IsZero() {
		r.vm().StartedAt = e.SentAt
	}
}

// startedUnproven takes a start of the VM while its register_runner is on its way. If that
// was handed out over HTTP, this is another boot: after a poll the command serves it as
// well, and in an answer to vm_started it was of no use.
func (r *reduction) startedUnproven(e Event) {
	v := r.vm()
	c, _ := r.State.Command(v.Registration.Command)
	if c.State != Delivered || c.Last.Via != HTTP || c.Last.Boot != v.Boot || e.SentAt.Equal(v.StartedAt) {
		return
	}
	if v.mayBoot(e.ReceivedAt) {
		v.Boot++
		v.BootedAt = e.ReceivedAt
	}
	v.StartedAt = e.SentAt
	if c.Last.Started && e.ReceivedAt.Sub(c.Last.At) >= leastAttemptTime {
		r.put(c.end(TimedOut, restartedUnregistered, r.now), r.now)
	}
}

// overtaken reports whether an event about a job was received after one that its agent
// sent later.
func (v VM) overtaken(e Event) bool {
	return e.Type != EventVMStarted && e.Type != EventRunnerRegistered &&
		sentBefore(e.SentAt, v.EvidenceSentAt, latest)
}

// evidence notes when the agent sent a report about its runner or job.
func (r *reduction) evidence(e Event) {
	v := r.vm()
	v.BootSeenAt, v.Registration.ProbeAt = noTime, noTime
	v.EvidenceSentAt = e.SentAt
}

func runnerRegistered(r *reduction, e Event) {
	r.evidence(e)
	r.vm().CrashedAt = noTime
	r.prove(e.Origin, provenByEvent)
}

// runnerCrashed leaves the registration alone: an agent in the field still counts its
// runner as configured, and takes no command for another.
func runnerCrashed(r *reduction, e Event) {
	r.evidence(e)
	v := r.vm()
	v.Job, v.CrashedAt = nil, e.ReceivedAt
	v.Runner = v.Runner.offline()
	r.notice(NoticeRunnerCrashed)
}

func jobStarted(r *reduction, e Event) {
	r.evidence(e)
	r.vm().CrashedAt = noTime
	r.State.VM = r.vm().startJob(*jobOf(e))
	if e.Via == Stream && r.vm().Registration.State != Registered { // only a registered runner gets one
		r.prove(e.Origin, "proven by the event job_started")
	}
}

func jobCompleted(r *reduction, e Event) {
	r.evidence(e)
	r.State.VM = r.vm().endJob(e.ReceivedAt)
}

// How a runner is proven to be registered.
const (
	provenByEvent     = "proven by the event runner_registered"
	provenByHeartbeat = "proven by a heartbeat of a configured runner"
)

// HeartbeatReceived is a heartbeat. One from a session that has been superseded is
// Stale and changes nothing.
type HeartbeatReceived struct{ Heartbeat *Heartbeat }

// Subject implements Input.
func (in HeartbeatReceived) Subject() (VMID, CommandID) { return in.Heartbeat.VM, "" }

func (in HeartbeatReceived) reduce(r *reduction) error {
	h := in.Heartbeat
	if r.Stale = r.vm().Stale(h.Origin); r.Stale {
		return nil
	}
	r.seen()
	late := r.vm().Late(*h) || h.ReceivedAt.Before(r.vm().BootedAt) // what it reports is over
	r.State.VM = r.vm().Heartbeat(*h, late)
	r.VMRecorded = r.vm().Health == h.Health // else the load is that of an earlier heartbeat
	if !late {
		r.observeAgent(h)
	}
	return nil
}

// observeAgent draws the conclusions of how a heartbeat shows the agent and its runner.
func (r *reduction) observeAgent(h *Heartbeat) {
	v := r.vm()
	if h.beyondStart() {
		v.MovesOn, v.BootSeenAt, v.Registration.ProbeAt = true, noTime, noTime
	}
	if h.Via == Stream && h.Runner != nil {
		v.AwaitsRunnerUntil = noTime
	}
	switch {
	case h.configured():
		if g := v.Registration; g.State != Registered || g.Epoch < v.Epoch || g.Probe != "" {
			r.prove(h.Origin, provenByHeartbeat)
		}
	case r.registering(), v.Registration.State == Unregistered:
	case h.showsStart(v.MovesOn):
		r.observeBoot(h.Origin, h.Status, noTime)
	case r.attempting():
		r.observeAttempt(h)
	}
}

// observeAttempt takes what a heartbeat shows of an attempt to register the runner.
func (r *reduction) observeAttempt(h *Heartbeat) {
	v := r.vm()
	switch {
	case h.Status == StatusError:
		grace := noTime
		if v.Connected { // it exits, and is not to get the next command before it is back
			grace = r.now.Add(registrationGrace)
		}
		r.failAttempt("its agent reported the state error", grace)
	case h.Status == "":
	case h.Via == HTTP && !v.Connected, h.Epoch > v.Registration.Epoch: // the drop came while it was registering
		r.continueAttempt(h.Origin)
	}
}

func (h Heartbeat) configured() bool { return h.Runner != nil && h.Runner.Configured }

// busy reports whether the agent works, or is on its way down.
func (h Heartbeat) busy() bool {
	return h.Status == StatusJobRunning || h.Status == StatusDraining || h.Status == StatusShuttingDown
}

// beyondStart reports whether the agent does what it does not do right after it was
// started.
func (h Heartbeat) beyondStart() bool {
	return h.configured() || h.Job != nil || h.Status != "" && !startsIn(h.Status)
}

// showsStart reports whether an agent that was started before, and moves on from that or
// not, sends this only after it was started again. One that goes down may give its runner
// up.
func (h Heartbeat) showsStart(movesOn bool) bool {
	switch h.Status {
	case StatusInitializing, StatusConnecting:
		return true
	case StatusReady:
		return movesOn
	case StatusRegistering, StatusError:
		return false
	default:
		return movesOn && h.Runner != nil && !h.busy()
	}
}
