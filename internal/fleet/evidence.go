package fleet

import "time"

// noTime is the zero time.
var noTime time.Time

// AckReceived is an ack that arrived on the session with this epoch. It returns ErrNotFound
// when the VM has no such command, ErrNotDelivered when the command was never sent, and
// ErrSuperseded when the ack arrived after a newer session was opened.
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
		return err // otherwise there is nothing to store
	}
	if r.vm().Epoch == in.Epoch {
		r.vm().LastSeenAt = r.now
	}
	restarted := acked.Type == RegisterRunner && !r.Late && acked.ID != r.vm().Registration.Probe && r.vm().ReadsNoCommands()
	r.vm().LastAckAt = r.now
	r.VMRecorded = !r.Late // the command's end has the time
	r.put(acked, r.now)
	if restarted {
		r.applyRestartAck(acked)
	}
	return nil
}

// EventReceived is an event. It is always stored. An event from a superseded session is
// Stale and has no other effect.
type EventReceived struct{ Event Event }

// Subject implements Input.
func (in EventReceived) Subject() (VMID, CommandID) { return in.Event.VM, "" }

func (in EventReceived) reduce(r *reduction) error {
	e := in.Event
	r.markKnown()
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

// reactions maps event types to their effect on the VM. Events of other types are only
// stored.
var reactions = map[string]func(*reduction, Event){
	EventVMStarted:        vmStarted,
	EventRunnerRegistered: runnerRegistered,
	EventRunnerCrashed:    runnerCrashed,
	EventJobStarted:       jobStarted,
	EventJobCompleted:     jobCompleted,
}

func vmStarted(r *reduction, e Event) {
	r.State.VM = r.vm().ApplyMachine(e)
	if r.registerRunnerOpen() {
		r.startedWhileRegistering(e)
	} else {
		r.observeBoot(e.Origin, "", e.SentAt)
	}
	if r.vm().StartedAt.IsZero() {
		r.vm().StartedAt = e.SentAt
	}
}

// startedWhileRegistering applies a vm_started that arrives while the VM's register_runner
// is open. If that was delivered over HTTP in this boot, the agent was started again, unless
// the event is a repetition: a command that a poll got remains valid in the new boot, and
// one in an answer to vm_started ends if the agent has had time to try it.
func (r *reduction) startedWhileRegistering(e Event) {
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
	if c.Last.Started && e.ReceivedAt.Sub(c.Last.At) >= minAttemptTime {
		r.put(c.end(TimedOut, restartedUnregistered, r.now), r.now)
	}
}

// overtaken reports whether an event about a job was received after one that its agent
// sent later.
func (v VM) overtaken(e Event) bool {
	return e.Type != EventVMStarted && e.Type != EventRunnerRegistered &&
		sentBefore(e.SentAt, v.EvidenceSentAt, maxReordering)
}

// recordEvidence records when the agent sent a report about its runner or job.
func (r *reduction) recordEvidence(e Event) {
	v := r.vm()
	v.BootSeenAt, v.Registration.ProbeAt = noTime, noTime
	v.EvidenceSentAt = e.SentAt
}

func runnerRegistered(r *reduction, e Event) {
	r.recordEvidence(e)
	r.vm().CrashedAt = noTime
	r.prove(e.Origin, provenByEvent)
}

// runnerCrashed leaves the registration unchanged: agents in the field still regard their
// runner as configured, and do not read another command.
func runnerCrashed(r *reduction, e Event) {
	r.recordEvidence(e)
	v := r.vm()
	v.Job, v.CrashedAt = nil, e.ReceivedAt
	v.Runner = v.Runner.offline()
	r.notice(NoticeRunnerCrashed)
}

func jobStarted(r *reduction, e Event) {
	r.recordEvidence(e)
	r.vm().CrashedAt = noTime
	r.State.VM = r.vm().startJob(*jobOf(e))
	if e.Via == Stream && r.vm().Registration.State != Registered { // only a registered runner gets a job
		r.prove(e.Origin, "proven by the event job_started")
	}
}

func jobCompleted(r *reduction, e Event) {
	r.recordEvidence(e)
	r.State.VM = r.vm().endJob(e.ReceivedAt)
}

// Why a runner is known to be registered.
const (
	provenByEvent     = "proven by the event runner_registered"
	provenByHeartbeat = "proven by a heartbeat of a configured runner"
)

// HeartbeatReceived is a heartbeat. One from a superseded session is Stale and has no
// effect.
type HeartbeatReceived struct{ Heartbeat *Heartbeat }

// Subject implements Input.
func (in HeartbeatReceived) Subject() (VMID, CommandID) { return in.Heartbeat.VM, "" }

func (in HeartbeatReceived) reduce(r *reduction) error {
	h := in.Heartbeat
	if r.Stale = r.vm().Stale(h.Origin); r.Stale {
		return nil
	}
	r.markKnown()
	late := r.vm().Late(*h) || h.ReceivedAt.Before(r.vm().BootedAt) // it reports an earlier state
	r.State.VM = r.vm().ApplyHeartbeat(*h, late)
	r.VMRecorded = r.vm().Health == h.Health // otherwise the load is from an earlier heartbeat
	if !late {
		r.observeAgent(h)
	}
	return nil
}

// observeAgent applies what a heartbeat shows of the agent and its runner.
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
	case r.registerRunnerOpen(), v.Registration.State == Unregistered:
	case h.showsStart(v.MovesOn):
		r.observeBoot(h.Origin, h.Status, noTime)
	case r.awaitingProof():
		r.observeAttempt(h)
	}
}

// observeAttempt applies what a heartbeat shows of an attempt to register the runner.
func (r *reduction) observeAttempt(h *Heartbeat) {
	v := r.vm()
	switch {
	case h.Status == StatusError:
		grace := noTime
		if v.Connected { // it exits, and must not get the next command before it has reconnected
			grace = r.now.Add(registrationGrace)
		}
		r.failAttempt("its agent reported the state error", grace)
	case h.Status == "":
	case h.Via == HTTP && !v.Connected, h.Epoch > v.Registration.Epoch: // the connection dropped while it was registering
		r.continueAttempt(h.Origin)
	}
}

func (h Heartbeat) configured() bool { return h.Runner != nil && h.Runner.Configured }

// busy reports whether the agent runs a job or is shutting down.
func (h Heartbeat) busy() bool {
	return h.Status == StatusJobRunning || h.Status == StatusDraining || h.Status == StatusShuttingDown
}

// beyondStart reports whether the agent is in a state that it is not in right after its
// start.
func (h Heartbeat) beyondStart() bool {
	return h.configured() || h.Job != nil || h.Status != "" && !isStartState(h.Status)
}

// showsStart reports whether an agent that is past its start sends this only after a
// restart. movesOn is whether that agent reports states beyond the first ones. An agent
// that shuts down may remove its runner.
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
