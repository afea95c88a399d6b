package fleet

import (
	"cmp"
	"slices"
	"time"
)

// Input is something that changes the state of a VM: an operator's request, evidence from
// its agent, or the passing of time.
type Input interface {
	// Subject returns the VM concerned, and the command that the input names, if any.
	Subject() (VMID, CommandID)
	// reduce applies the input. If it returns an error, its changes are discarded.
	reduce(r *reduction) error
}

// Rules are the settings for the controller's own commands.
type Rules struct {
	Defaults CommandDefaults
	// RegistrationTimeout is how long a runner may take to register after its agent has
	// received the configuration; zero means DefaultRegistrationTimeout.
	RegistrationTimeout time.Duration
	// NewID returns a new id for a command of this VM.
	NewID func(VMID) CommandID
}

// Outcome is the result of an input: a new state and its consequences.
type Outcome struct {
	State State
	// Command is the command that the input names, in its new state.
	Command Command
	// Late is whether an ack arrived after its command had ended.
	Late bool
	// Event is the event of an EventReceived, as stored.
	Event *Event
	// Stale is whether the input came from a superseded session, and so is not evidence
	// about the VM.
	Stale bool

	// Commands are the changed commands, in their new state.
	Commands []Command
	// Changes are the entries for the change log, in order. The change of the VM itself is
	// not among them, since the VM may change again before the commit.
	Changes []Change
	// Notices are to be logged.
	Notices []Notice
	// VMRecorded is whether the heartbeat or the ack contains everything that changed in
	// the VM.
	VMRecorded bool
	// VMChecked is whether the outcome depends on the pool of the VM: it must not be committed
	// if the VM has changed since.
	VMChecked bool
	// Ready is the command that can be sent on the live session now; the zero value means
	// none, or that the input changed nothing relevant. A TokenUnavailable is always
	// relevant.
	Ready Ready
}

// Ready is a command that can be sent.
type Ready struct {
	Command CommandID
	// Prepare is whether it needs a registration token, which must be fetched before the
	// command is leased.
	Prepare bool
}

// Reduce applies an input that arrived at this time to the state of its VM. It returns an
// error of the domain; then nothing has changed.
func (r Rules) Reduce(s State, in Input, now time.Time) (Outcome, error) {
	if h, ok := in.(HeartbeatReceived); ok { // the most frequent input: this reduction stays on the stack
		red := r.begin(s, in, now)
		return red.done(s, h.reduce(&red))
	}
	red := r.begin(s, in, now)
	return red.done(s, in.reduce(&red))
}

// reduction is a Reduce in progress.
type reduction struct {
	rules         Rules
	now           time.Time
	vmID          VMID
	tokenRetryDue bool      // this Tick triggers the next try to get a token
	leased        CommandID // leased to the live session when it was accepted
	// sendable is whether the command that can be sent may have changed although nothing
	// visible differs.
	sendable bool
	Outcome
}

func (r Rules) begin(s State, in Input, now time.Time) reduction {
	vm, _ := in.Subject()
	return reduction{rules: r, now: now, vmID: vm, Outcome: Outcome{State: s}}
}

// done returns the outcome of a reduction that began with s.
func (r *reduction) done(s State, err error) (Outcome, error) {
	if err != nil {
		return Outcome{State: s, Command: r.Command}, err
	}
	if r.vm().Connected {
		r.register()
	}
	r.vm().DueAt = r.vm().nextTickAt()
	r.Ready = r.nextReady(s)
	return r.Outcome, nil
}

func (r *reduction) vm() *VM { return &r.State.VM }

// markKnown makes the VM known. A VM whose record was lost has no session: its earlier
// sessions have ended, and the epochs continue after theirs.
func (r *reduction) markKnown() {
	if r.State.Known() {
		return
	}
	lost := r.vm().Epoch
	r.State.VM = NewVM(r.vmID, r.now)
	if lost == 0 {
		return
	}
	r.vm().Epoch, r.vm().DisconnectedAt = lost, r.now
	for _, c := range r.State.Commands {
		r.endCommandSession(c, lost)
	}
}

// named returns the command with this id, or ErrNotFound.
func (r *reduction) named(id CommandID) (Command, error) {
	c, ok := r.State.Command(id)
	if !ok || c.VM != r.vmID {
		return c, ErrNotFound
	}
	return c, nil
}

// put records a changed command, and applies the consequences of its end to the
// registration of its VM.
func (r *reduction) put(c Command, at time.Time) {
	r.putQuietly(c)
	if c.State.Terminal() && c.NeedsToken() && r.State.Known() {
		r.vm().TokenWait, r.vm().AwaitsRunnerUntil = TokenWait{}, noTime
		r.endRegisterRunner(c)
	}
	r.Changes = append(r.Changes, Change{At: at, Subject: c.VM, Command: &c})
}

// putQuietly is put without an entry in the change log.
func (r *reduction) putQuietly(c Command) {
	r.State = r.State.with(c)
	for i, moved := range r.Commands {
		if moved.ID == c.ID {
			r.Commands[i] = c
			return
		}
	}
	r.Commands = append(r.Commands, c)
}

// accept adds a new command.
func (r *reduction) accept(c Command) { r.put(c, c.AcceptedAt) }

// deliver leases a command for a delivery.
func (r *reduction) deliver(c Command, d Delivery) error {
	leased, err := c.MarkDelivered(d)
	if err != nil {
		return err
	}
	if c.NeedsToken() {
		r.vm().TokenWait, r.vm().AwaitsRunnerUntil = TokenWait{}, noTime
		if d.Via == HTTP { // agents that poll send no acks: proof of the registration is awaited instead
			leased.DueAt = d.At.Add(max(c.AckTimeout, r.rules.registrationTimeoutOrDefault()))
		}
	}
	r.put(leased, d.At)
	r.Command = leased
	return nil
}

// endDeliveries ends the deliveries of the newest session, which has ended: the last
// written one counts, and a later lease was not delivered.
func (r *reduction) endDeliveries(written CommandID) {
	e := r.vm().Epoch
	for _, c := range r.State.Commands {
		if c.LeasedTo(e) && c.ID != written {
			r.put(c.ReleaseLease(e), r.now)
		} else {
			r.endCommandSession(c, e)
		}
	}
}

// endCommandSession applies the end of the sessions up to e to a command.
func (r *reduction) endCommandSession(c Command, e Epoch) {
	if ended := c.EndSession(e, r.now); ended.State != c.State || !ended.DueAt.Equal(c.DueAt) {
		r.put(ended, r.now)
	}
}

// beginCommandSession applies the beginning of the newest session to all commands.
func (r *reduction) beginCommandSession() {
	for _, c := range r.State.Commands {
		if began := c.BeginSession(r.now); began.State != c.State || !began.DueAt.Equal(c.DueAt) {
			r.put(began, r.now)
		}
	}
}

// nextReady returns what can be sent on the live session, if that may have changed. A token
// that was not available is requested again when its time has come, and immediately by a
// new session, which has none; not after every input.
func (r *reduction) nextReady(before State) Ready {
	v := r.State.VM
	if !v.Connected || !r.tokenRetryDue && !r.sendable && len(r.Commands) == 0 && !v.Differs(before.VM) {
		return Ready{}
	}
	if r.leased != "" {
		return Ready{Command: r.leased}
	}
	if r.inFlight() {
		return Ready{} // its session already has it
	}
	noToken := v.TokenWait != (TokenWait{}) && r.now.Before(v.TokenWait.RetryAt) && !r.tokenRetryDue
	next, err := r.State.next(v.nextOnStream(r.now), "", noToken)
	if err != nil {
		return Ready{}
	}
	return Ready{Command: next.ID, Prepare: next.NeedsToken()}
}

// inFlight reports whether a command in flight blocks the live session.
func (r *reduction) inFlight() bool {
	d := r.vm().nextOnStream(r.now)
	return slices.ContainsFunc(r.State.Commands, func(c Command) bool { return c.InFlight(d) })
}

func (r Rules) registrationTimeoutOrDefault() time.Duration {
	return cmp.Or(r.RegistrationTimeout, DefaultRegistrationTimeout)
}

// nextOnStream returns a delivery on the newest session.
func (v VM) nextOnStream(at time.Time) Delivery {
	return Delivery{Via: Stream, Epoch: v.Epoch, Boot: v.Boot, At: at}
}

// registerRunner returns the controller's own pending command to register a VM's runner.
// Its parameters are filled in at delivery.
func (r Rules) registerRunner(vm VMID, now time.Time) Command {
	deadline := now.Add(r.Defaults.TTL)
	return Command{
		ID: r.NewID(vm), VM: vm, Type: RegisterRunner,
		CreatedAt: now.Truncate(time.Second), AcceptedAt: now, ExpiresAt: deadline,
		AckTimeout: r.Defaults.AckTimeout, MaxDeliveries: r.Defaults.MaxDeliveries, State: Pending, DueAt: deadline,
	}
}
