package fleet

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
	acked, err := c.Acked(in.Ack, r.now)
	r.Command = acked
	if err != nil || repeated || acked.Ack == nil {
		return err // or nothing of it is stored
	}
	if r.vm().Epoch == in.Epoch {
		r.vm().LastSeenAt = r.now
	}
	r.vm().LastAckAt = r.now
	r.VMRecorded = !r.Late // when the command ended says it
	r.put(acked, r.now)
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
	r.State.VM = r.vm().Seen(e.Origin)
	if react, ok := reactions[e.Type]; ok {
		react(r, e)
	}
	return nil
}

// reactions are what events mean for their VM. Events of other types are only stored.
var reactions = map[string]func(*reduction, Event){
	EventVMStarted:        vmStarted,
	EventRunnerRegistered: runnerRegistered,
}

func vmStarted(r *reduction, e Event) {
	r.State.VM = r.vm().Started(e, r.registering()).Described(e)
	if r.vm().Connected {
		r.register()
	}
}

func runnerRegistered(r *reduction, e Event) {
	r.State.VM = r.vm().RegistrationProven(e.ReceivedAt)
	r.prove("proven by the event runner_registered")
}

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
	registering, before := r.registering(), r.vm().Registration.State
	r.State.VM = r.vm().Heartbeat(*h, registering)
	r.VMRecorded = r.vm().Health == h.Health // else the load is that of an earlier heartbeat
	if r.vm().AwaitsRunner && h.Via == Stream && h.Runner != nil {
		r.State.VM = r.vm().untimed()
	}
	switch now := r.vm().Registration.State; {
	case now == Unregistered && before != Unregistered && r.vm().Connected:
		r.register()
	case registering && now == Registered:
		r.prove("proven by a heartbeat of a configured runner")
	}
	return nil
}
