package fleet

import (
	"testing"
	"time"
)

// acked is c after its agent has acked it.
func (c Command) acked(success bool, at time.Time) Command {
	s, reason := Succeeded, ackedReason
	if !success {
		s, reason = Failed, "the agent answered that it failed"
	}
	c = c.endedAs(s, reason, at)
	c.Ack, c.AckedAt = &Ack{CommandID: c.ID, Success: success}, at
	return c
}

// seenAt is v after an ack.
func (v VM) seenAt(seen, acked time.Time) VM {
	v.LastSeenAt, v.LastAckAt = seen, acked
	return v
}

func TestAckReceived(t *testing.T) {
	t.Parallel()
	in := func(e Epoch, success bool) AckReceived {
		return AckReceived{"vm", e, Ack{CommandID: "c", Success: success}}
	}
	out, seen := drain("c").deliveredBy(Stream, 2, t0), liveVM().seenAt(t1, t1)
	timedOut := out.endedAs(TimedOut, "", t0)
	late := timedOut
	late.Ack, late.AckedAt = &Ack{CommandID: "c", Success: true}, t1
	unsent := drain("c").endedAs(Cancelled, "", t0)
	newer := liveVM().OpenSession(Hello{VM: "vm"}, t1)
	elsewhere := out
	elsewhere.VM = "vm-2"
	answered := out.acked(true, t1)
	before := t1.Add(-1)
	testReduce(t, map[string]reduceCase{
		"of a VM never seen":                {in: in(1, true), err: ErrNotFound},
		"of an unknown command":             {state: stateOf(liveVM()), in: in(2, true), err: ErrNotFound},
		"of a command of another VM":        {state: State{VM: liveVM(), Named: elsewhere}, in: in(2, true), err: ErrNotFound},
		"of a pending command":              {state: stateOf(liveVM(), drain("c")), in: in(2, true), answer: drain("c"), err: ErrNotDelivered},
		"on a superseded session":           {state: stateOf(newer, out), in: in(2, true), err: ErrSuperseded},
		"success":                           {state: stateOf(liveVM(), out, drain("d")), in: in(2, true), vm: seen, changed: []Command{answered}, answer: answered, recorded: true, ready: Ready{"d", false}},
		"failure":                           {state: stateOf(liveVM(), out), in: in(2, false), vm: seen, changed: []Command{out.acked(false, t1)}, answer: out.acked(false, t1), recorded: true},
		"of a command delivered to a poll":  {state: stateOf(liveVM(), drain("c").deliveredBy(HTTP, 1, t0)), in: in(2, true), vm: seen, changed: []Command{drain("c").deliveredBy(HTTP, 1, t0).acked(true, t1)}, answer: drain("c").deliveredBy(HTTP, 1, t0).acked(true, t1), recorded: true},
		"after the end of the session":      {state: stateOf(offlineVM(), out), in: in(2, true), vm: offlineVM().seenAt(t1, t1), changed: []Command{answered}, answer: answered, recorded: true},
		"late":                              {state: State{VM: liveVM(), Named: timedOut}, in: in(2, true), vm: seen, changed: []Command{late}, answer: late, late: true},
		"late, and not the first":           {state: State{VM: liveVM(), Named: late}, in: in(2, false), answer: late, late: true},
		"of a command that was never sent":  {state: State{VM: liveVM(), Named: unsent}, in: in(2, true), answer: unsent, late: true},
		"received before the newer session": {state: stateOf(newer, out), in: in(2, true), now: before, vm: newer.seenAt(newer.LastSeenAt, before), changed: []Command{out.acked(true, before)}, answer: out.acked(true, before), recorded: true},
	})
}

// An ack of a register_runner shows whether the agent accepted the configuration.
func TestAckOfRegisterRunner(t *testing.T) {
	t.Parallel()
	v, r := requestedVM(), register("r").deliveredBy(Stream, 2, t0)
	reg := ownRegister()
	failed := v.seenAt(t1, t1).failedBy("r", "the agent refused it: ", t1).requestedBy(reg)
	testReduce(t, map[string]reduceCase{
		"accepted": {
			state: stateOf(v, r), in: AckReceived{"vm", 2, Ack{CommandID: "r", Success: true}},
			vm: v.seenAt(t1, t1), changed: []Command{r.acked(true, t1)}, answer: r.acked(true, t1), recorded: true,
		},
		"refused": {
			state: stateOf(v, r), in: AckReceived{"vm", 2, Ack{CommandID: "r"}}, vm: failed,
			changed: []Command{r.acked(false, t1), reg}, answer: r.acked(false, t1), recorded: true, ready: Ready{"reg", true},
			notices: []NoticeKind{NoticeRegistrationFailed},
		},
	})
}

func eventAt(e Epoch, kind string, sent time.Time) Event {
	o := Origin{VM: "vm", Via: Stream, Epoch: e, ReceivedAt: t1, SentAt: sent}
	if e == 0 {
		o.Via = HTTP
	}
	return Event{Origin: o, Type: kind}
}

// kept is the change log of an event and its consequences.
func kept(e Event, moved ...Command) []Change {
	log := []Change{{At: e.ReceivedAt, Subject: e.VM, Event: &e}}
	for _, c := range moved {
		log = append(log, commandChange(c, t1))
	}
	return log
}

func TestEventReceived(t *testing.T) {
	t.Parallel()
	other := eventAt(2, "other", t0)
	other.Pool, other.Org = "q", "o"
	stale, polled := eventAt(1, EventVMStarted, t1), eventAt(0, EventVMStarted, t1)
	first := NewVM("vm", t1).MarkSeen(polled.Origin)
	first.StartedAt = t1
	testReduce(t, map[string]reduceCase{
		"of a VM never seen":        {in: EventReceived{other}, vm: NewVM("vm", t1).MarkSeen(other.Origin), log: kept(other)},
		"of another type":           {state: stateOf(liveVM(), drain("c")), in: EventReceived{other}, vm: liveVM().MarkSeen(other.Origin), log: kept(other), ready: Ready{"c", false}},
		"from a superseded session": {state: stateOf(liveVM()), in: EventReceived{stale}, log: kept(stale), stale: true},
		"the first start":           {in: EventReceived{polled}, vm: first, log: kept(polled)},
	})
}

func TestRunnerRegistered(t *testing.T) {
	t.Parallel()
	e, polled := eventAt(2, EventRunnerRegistered, t0), eventAt(0, EventRunnerRegistered, t0)
	r := register("r")
	out, handed := r.deliveredBy(Stream, 2, t0), r.deliveredBy(HTTP, 2, t0)
	proof := "proven by the event runner_registered"
	proven := func(v VM) VM {
		v = v.MarkSeen(e.Origin).ProveRegistration(t1)
		v.EvidenceSentAt = t0
		return v
	}
	v := proven(requestedVM())
	offline := offlineVM().RequestRegistration(r)
	withdrawn := r.endedAs(Cancelled, "no longer needed: "+proof, t1)
	testReduce(t, map[string]reduceCase{
		"in flight": {
			state: stateOf(requestedVM().waiting(t1.Add(1)), drain("a").deliveredBy(HTTP, 0, t0), out, register("s"), drain("c")),
			in:    EventReceived{e}, vm: v, changed: []Command{out.endedAs(Succeeded, proof, t1)},
			log: kept(e, out.endedAs(Succeeded, proof, t1)), // a was delivered to a poll
		},
		"delivered to a poll": {
			state: stateOf(offline, handed), in: EventReceived{polled}, vm: proven(offline),
			changed: []Command{handed.endedAs(Succeeded, proof, t1)}, log: kept(polled, handed.endedAs(Succeeded, proof, t1)),
		},
		"pending":                 {state: stateOf(requestedVM(), r), in: EventReceived{e}, vm: v, changed: []Command{withdrawn}, log: kept(e, withdrawn)},
		"another register_runner": {state: stateOf(requestedVM(), register("q")), in: EventReceived{e}, vm: v, log: kept(e), ready: Ready{"q", true}},
		"no register_runner":      {state: stateOf(requestedVM(), drain("c").deliveredBy(Stream, 2, t0)), in: EventReceived{e}, vm: v, log: kept(e)},
	})
}

func TestHeartbeatReceived(t *testing.T) {
	t.Parallel()
	beat := func(e Epoch, configured bool) *Heartbeat {
		o := Origin{VM: "vm", Via: Stream, Epoch: e, ReceivedAt: t1}
		return &Heartbeat{Origin: o, Status: "idle", Runner: &Runner{Configured: configured}}
	}
	h, ready := beat(2, false), beat(2, true)
	r := register("r")
	out := r.deliveredBy(Stream, 2, t0).endedAs(Succeeded, "proven by a heartbeat of a configured runner", t1)
	withdrawn := r.endedAs(Cancelled, "no longer needed: proven by a heartbeat of a configured runner", t1)
	after := func(v VM, h *Heartbeat) VM {
		v = v.ApplyHeartbeat(*h, false)
		v.MovesOn = true
		return v
	}
	unregistered := liveVM().CloseSession(2, t0)
	unregistered.Registration = Registration{State: Unregistered}
	same, registered := after(liveVM(), ready), after(requestedVM(), ready).ProveRegistration(t1)
	testReduce(t, map[string]reduceCase{
		"of a VM never seen":                   {in: HeartbeatReceived{h}, vm: after(NewVM("vm", t1), h), recorded: true},
		"from a superseded session":            {state: stateOf(liveVM(), drain("c")), in: HeartbeatReceived{beat(1, false)}, stale: true},
		"with nothing new":                     {state: stateOf(same, drain("c")), in: HeartbeatReceived{ready}, recorded: true},
		"with a configured runner":             {state: stateOf(liveVM(), drain("c")), in: HeartbeatReceived{ready}, vm: same, recorded: true, ready: Ready{"c", false}},
		"with a runner that is not configured": {state: stateOf(liveVM()), in: HeartbeatReceived{h}, vm: after(liveVM(), h), recorded: true},
		"while unregistered":                   {state: stateOf(unregistered), in: HeartbeatReceived{h}, vm: after(unregistered, h), recorded: true},
		"while register_runner is pending":     {state: stateOf(requestedVM(), r), in: HeartbeatReceived{h}, vm: after(requestedVM(), h), recorded: true, ready: Ready{"r", true}},
		"proof": {
			state: stateOf(requestedVM(), r.deliveredBy(Stream, 2, t0)), in: HeartbeatReceived{ready}, vm: registered,
			changed: []Command{out}, recorded: true,
		},
		"proof, with an operator's register_runner in flight": {
			state: stateOf(liveVM(), r.deliveredBy(Stream, 2, t0)), in: HeartbeatReceived{ready}, vm: same, recorded: true,
		},
		"proof, with register_runner pending": {
			state: stateOf(requestedVM(), r), in: HeartbeatReceived{ready}, vm: registered,
			changed: []Command{withdrawn}, recorded: true,
		},
	})
}
