package fleet

import (
	"hash/fnv"
	"slices"
	"time"
)

// RegistrationState is how far the registration of the VM's runner has got in this boot.
type RegistrationState string

// The states of a registration.
const (
	Unregistered RegistrationState = "UNREGISTERED"
	Requested    RegistrationState = "REQUESTED"
	Registered   RegistrationState = "REGISTERED"
	RegFailed    RegistrationState = "FAILED"
)

const (
	// DefaultRegistrationTimeout is how long a runner may take to register after its agent
	// has received the configuration, unless an option says otherwise.
	DefaultRegistrationTimeout = 5 * time.Minute
	// registrationGrace is how long after the end of its session an agent that was
	// registering its runner may take to show that it still does.
	registrationGrace = time.Minute
	// minAttemptTime is how long an agent that received its configuration in the answer to
	// vm_started tries to register its runner: an agent that repeats vm_started sooner did
	// not get the answer.
	minAttemptTime = 2 * time.Second
	// expiredRetryDelay is the minimum time from the acceptance of a register_runner that
	// expired undelivered to the request of the next one.
	expiredRetryDelay = time.Minute
)

// After the first failure in a row the next attempt is made immediately, after the second
// after firstRetryDelay, and then after twice as long each time, up to lastRetryDelay; each
// delay varies by a quarter, so that the VMs of a fleet do not retry in step.
const (
	firstRetryDelay = 30 * time.Second
	lastRetryDelay  = 15 * time.Minute
)

// Registration is the desired state of the VM's runner in this boot. It is requested, and
// then proven: by a report that only an agent with a registered runner sends. It is not
// repeated after a network drop; it is repeated after a restart, and with a delay after a
// failure.
type Registration struct {
	State RegistrationState `json:"state"`
	// Command is the register_runner of the latest attempt in this boot; empty before
	// the first.
	Command     CommandID `json:"command,omitempty"`
	RequestedAt time.Time `json:"requested_at,omitzero"`
	ProvenAt    time.Time `json:"proven_at,omitzero"`
	// Epoch is the newest session on which the agent is known to be in this boot.
	Epoch Epoch `json:"epoch,omitempty"`

	// CheckAt is when an attempt is checked again; zero for never. GraceUntil is when an
	// attempt fails because its session has ended; in RegFailed, it is until when the next
	// attempt waits for a new session, since the agent is about to exit; zero for no wait.
	CheckAt    time.Time `json:"check_at,omitzero"`
	GraceUntil time.Time `json:"grace_until,omitzero"`

	// Failures counts the attempts that have failed since the runner was last registered,
	// and Crashes the consecutive boots whose runner crashed right after its registration.
	Failures    int64               `json:"failures,omitempty"`
	Crashes     int64               `json:"crashes,omitempty"`
	LastFailure RegistrationFailure `json:"last_failure,omitzero"`
	// NextAttemptAt is the earliest time of the next attempt. In RegFailed zero means
	// never: an operator cancelled it.
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`

	// Probe is the register_runner that shows whether a silent agent has lost its runner,
	// and ProbeAt when it is sent; empty and zero for none.
	Probe   CommandID `json:"probe,omitempty"`
	ProbeAt time.Time `json:"probe_at,omitzero"`
}

// RegistrationFailure is the end of an attempt that did not register the runner.
type RegistrationFailure struct {
	At      time.Time `json:"at"`
	Command CommandID `json:"command"`
	Reason  string    `json:"reason"`
}

// Next returns when the next attempt is made, unless a new session begins earlier.
func (g Registration) Next() time.Time { return later(g.NextAttemptAt, g.GraceUntil) }

// inNewBoot returns the registration in a new boot. The failure count is kept.
func (g Registration) inNewBoot() Registration {
	next := Registration{
		State: Unregistered, Failures: g.Failures, Crashes: g.Crashes, LastFailure: g.LastFailure, NextAttemptAt: g.NextAttemptAt,
	}
	if g.State == RegFailed && !g.NextAttemptAt.IsZero() {
		next.State, next.Command = RegFailed, g.Command
	}
	return next
}

// retryDelay returns the delay of the next attempt after this many failures in a row.
func retryDelay(vm VMID, failures int64) time.Duration {
	if failures < 2 {
		return 0
	}
	delay := firstRetryDelay
	for n := int64(2); n < failures && delay < lastRetryDelay; n++ {
		delay *= 2
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(vm))
	_, _ = h.Write([]byte{byte(failures)})
	quarter := min(delay, lastRetryDelay) / 4
	return 3*quarter + 2*quarter/1000*time.Duration(h.Sum32()%1001)
}

// RequestRegistration records that cmd is to register the VM in this boot.
func (v VM) RequestRegistration(cmd Command) VM {
	g := v.Registration.inNewBoot()
	g.State, g.Command, g.RequestedAt, g.Epoch = Requested, cmd.ID, cmd.AcceptedAt, v.Epoch
	g.NextAttemptAt = time.Time{}
	v.Registration = g
	return v
}

// ProveRegistration records that the runner is registered, as the agent of the VM's newest
// session reports.
func (v VM) ProveRegistration(now time.Time) VM {
	g := &v.Registration
	if g.State != Registered {
		*g = Registration{
			State: Registered, Command: g.Command, RequestedAt: g.RequestedAt, ProvenAt: now,
			Crashes: g.Crashes, LastFailure: g.LastFailure,
		}
	}
	g.Epoch = v.Epoch
	return v
}

// restartedUnregistered is the reason of an attempt during which the agent was restarted.
const restartedUnregistered = "its agent was started again before the runner was registered"

// registerAt returns when the VM is to be registered; false for never. A registration never
// interrupts a job.
func (v VM) registerAt() (time.Time, bool) {
	g := v.Registration
	switch {
	case v.Job != nil:
		return time.Time{}, false
	case g.State == Unregistered, g.State == RegFailed && !g.NextAttemptAt.IsZero():
		return later(g.Next(), v.contestedUntil()), true
	default:
		return time.Time{}, false
	}
}

// register requests the registration of the VM unless it is registered: with a
// register_runner that is already open, or else with a new one once that is due.
func (r *reduction) register() {
	at, wanted := r.vm().registerAt()
	if !wanted {
		return
	}
	if i := slices.IndexFunc(r.State.Commands, Command.NeedsToken); i >= 0 {
		r.recordRequested(r.State.Commands[i])
		return
	}
	if r.now.Before(at) {
		return
	}
	c := r.rules.registerRunner(r.vmID, r.now)
	r.accept(c)
	r.recordRequested(c)
}

func (r *reduction) recordRequested(c Command) {
	r.State.VM = r.vm().RequestRegistration(c)
	r.vm().Registration.CheckAt = r.now.Add(r.rules.registrationTimeoutOrDefault())
}

// registerRunnerOpen reports whether the VM's register_runner is pending or in flight.
func (r *reduction) registerRunnerOpen() bool {
	g := r.vm().Registration
	return g.State == Requested && r.State.index(g.Command) >= 0
}

// awaitingProof reports whether the agent has the configuration and the proof has not arrived.
func (r *reduction) awaitingProof() bool {
	return r.vm().Registration.State == Requested && !r.registerRunnerOpen()
}

// attemptFailsAt returns when an attempt fails without proof.
func (r *reduction) attemptFailsAt() time.Time {
	v := r.vm()
	if g := v.Registration.GraceUntil; !g.IsZero() {
		return g
	}
	return later(v.LastAckAt, v.Registration.RequestedAt).Add(r.rules.registrationTimeoutOrDefault())
}

// checkAttempt fails an attempt whose time is up, or schedules the next check.
func (r *reduction) checkAttempt() {
	v := r.vm()
	switch at := r.attemptFailsAt(); {
	case r.registerRunnerOpen():
		v.Registration.CheckAt = r.now.Add(r.rules.registrationTimeoutOrDefault())
	case r.now.Before(at):
		v.Registration.CheckAt = at
	case !v.Registration.GraceUntil.IsZero():
		r.failAttempt("its session ended, and within a minute nothing showed that its agent was still registering it", noTime)
	default:
		r.failAttempt("no proof arrived within "+r.rules.registrationTimeoutOrDefault().String()+" after its agent received the configuration", noTime)
	}
}

// continueAttempt records that the agent is still registering its runner, as it reports on
// the session with this epoch or over HTTP.
func (r *reduction) continueAttempt(o Origin) {
	g := &r.vm().Registration
	g.GraceUntil = time.Time{}
	g.Epoch = max(g.Epoch, o.Epoch)
}

// failAttempt ends the attempt to register the VM. The next one waits for a new session
// until grace; zero for no wait.
func (r *reduction) failAttempt(reason string, grace time.Time) {
	g := &r.vm().Registration
	failures := g.Failures + 1
	*g = Registration{
		State: RegFailed, Command: g.Command, RequestedAt: g.RequestedAt, Epoch: g.Epoch,
		Failures: failures, Crashes: g.Crashes,
		LastFailure:   RegistrationFailure{At: r.now, Command: g.Command, Reason: reason},
		NextAttemptAt: r.now.Add(retryDelay(r.vmID, failures)), GraceUntil: grace,
	}
	r.notice(NoticeRegistrationFailed)
}

// endRegisterRunner applies the end of a register_runner to the registration.
func (r *reduction) endRegisterRunner(c Command) {
	g := &r.vm().Registration
	switch {
	case c.ID == g.Probe:
		g.Probe = ""
		switch {
		case c.Ack != nil:
			r.applyRestartAck(c)
		case c.State == Expired: // there was no token
			g.ProbeAt = r.now.Add(r.vm().probeDelay())
		}
	case g.State != Requested || g.Command != c.ID:
	case c.State == Succeeded: // the agent has the configuration
		g.Epoch = max(g.Epoch, c.Last.Epoch)
	case c.State == Expired: // undelivered: the next session, poll or Tick requests another one
		g.State, g.CheckAt, g.NextAttemptAt = Unregistered, noTime, c.AcceptedAt.Add(expiredRetryDelay)
	case c.State == Cancelled: // by an operator
		g.State, g.CheckAt = RegFailed, noTime
		g.LastFailure = RegistrationFailure{At: r.now, Command: c.ID, Reason: "an operator cancelled it"}
		g.Epoch = max(g.Epoch, c.Last.Epoch)
	case c.State == Failed:
		g.Epoch = max(g.Epoch, c.Last.Epoch)
		r.failAttempt("the agent refused it: "+c.Ack.Message, noTime)
	default:
		r.failAttempt(c.Reason, noTime)
	}
}

// prove records that the runner is registered, and ends the VM's register_runner: agents
// may lose an ack, agents that poll send none, and a pending one is no longer needed.
func (r *reduction) prove(o Origin, evidence string) {
	wanted := r.registerRunnerOpen()
	probe := r.vm().Registration.Probe
	if r.vm().Registration.State != Registered {
		r.vm().EvidenceSentAt = o.SentAt
	}
	r.State.VM = r.vm().ProveRegistration(o.ReceivedAt)
	for _, c := range r.State.Commands {
		own := wanted && c.ID == r.vm().Registration.Command || c.ID == probe
		if own || c.State == Delivered && c.Type == RegisterRunner && evidence == provenByEvent {
			r.put(c.MarkUnneeded(evidence, r.now), r.now)
		}
	}
}
