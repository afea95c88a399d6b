package fleet

import "testing"

// A new session asks immediately for a token that was not available before: nothing else
// would trigger it.
func TestReadyOnNewSession(t *testing.T) {
	t.Parallel()
	hello := Hello{VM: "vm", Pool: "p"}
	offline := offlineVM().RequestRegistration(register("r")).waiting(noTime)
	live := requestedVM().waiting(t1.Add(1))
	testReduce(t, map[string]reduceCase{
		"after a poll without a token": {
			state: stateOf(offline, register("r"), drain("c")), in: SessionOpened{Hello: hello},
			vm: offline.OpenSession(hello, t1), ready: Ready{"r", true},
		},
		"while another is live": {
			state: stateOf(live, register("r")), in: SessionOpened{Hello: hello},
			vm: live.OpenSession(hello, t1), ready: Ready{"r", true},
		},
		"with a command that comes first": {
			state: stateOf(offline, drain("c"), register("r")), in: SessionOpened{Hello: hello},
			vm: offline.OpenSession(hello, t1), ready: Ready{"c", false},
		},
		"once that command has ended": {
			state: stateOf(live.waiting(noTime), drain("c").deliveredBy(Stream, 2, t0), register("r")),
			in:    CancelRequested{VM: "vm", Command: "c"}, ready: Ready{"r", true},
			changed: []Command{drain("c").deliveredBy(Stream, 2, t0).endedAs(Cancelled, cancelledOut, t1)},
			answer:  drain("c").deliveredBy(Stream, 2, t0).endedAs(Cancelled, cancelledOut, t1),
		},
	})
}

// The time to ask for a token again is not missed because another command is in flight: on
// a busy VM, that would happen each time.
func TestReadyAfterBusyTick(t *testing.T) {
	t.Parallel()
	busy := requestedVM().waiting(t1)
	out := drain("c").deliveredBy(Stream, 2, t0)
	acked := out.endedAs(Succeeded, "the agent acked it", t1)
	acked.Ack, acked.AckedAt = &Ack{CommandID: "c", Success: true}, t1
	later := busy.waiting(noTime)
	later.LastSeenAt, later.LastAckAt = t1, t1
	testReduce(t, map[string]reduceCase{
		"while a command is in flight": {
			state: stateOf(busy, register("r"), out, drain("d")), in: Tick{VM: "vm"}, vm: busy.waiting(noTime),
		},
		"once that is acked": {
			state: stateOf(busy.waiting(noTime), register("r"), out, drain("d")),
			in:    AckReceived{"vm", 2, Ack{CommandID: "c", Success: true}},
			vm:    later, changed: []Command{acked}, answer: acked, recorded: true, ready: Ready{"r", true},
		},
		"with no command in flight": {
			state: stateOf(busy, register("r"), drain("d")), in: Tick{VM: "vm"},
			vm: busy.waiting(busy.TokenWait.NextTry(t1)), ready: Ready{"r", true},
		},
	})
}

// When a token is again not available, the other commands continue.
func TestReadyWithoutToken(t *testing.T) {
	t.Parallel()
	fails := TokenUnavailable{"vm", "no file"}
	v := requestedVM()
	next := v.waiting(noTime).TokenWait.NextTry(t1)
	first := v.waiting(TokenWait{Since: t1}.NextTry(t1))
	first.TokenWait.Since = t1
	testReduce(t, map[string]reduceCase{
		"for the first time": {
			state: stateOf(v, register("r"), drain("c")), in: fails, vm: first, ready: Ready{"c", false},
		},
		"again, after a Tick": {
			state: stateOf(v.waiting(next), register("r"), drain("c")), in: fails, ready: Ready{"c", false},
		},
		"again, on a new session": {
			state: stateOf(v.waiting(noTime), register("r"), drain("c")), in: fails, vm: v.waiting(next), ready: Ready{"c", false},
		},
		"with no other command": {state: stateOf(v.waiting(next), register("r")), in: fails},
		"while another is in flight": {
			state: stateOf(v.waiting(next), register("r"), drain("c").deliveredBy(Stream, 2, t0), drain("d")), in: fails,
		},
		"to a poll": {
			state: stateOf(offlineVM(), register("r"), drain("c")), in: fails,
			vm: func() VM { v := offlineVM(); v.TokenWait = TokenWait{Why: "no file", Since: t1}; return v }(),
		},
		"of a VM that is not known": {in: fails, err: ErrNotFound},
	})
}
