package fleet

import "testing"

// A new session asks for the token that was not available before at once: nothing
// else would have it asked for.
func TestReadyOnNewSession(t *testing.T) {
	t.Parallel()
	hello := Hello{VM: "vm", Pool: "p"}
	offline := offlineVM().RegistrationRequested(register("r")).waiting(noTime)
	live := requestedVM().waiting(t1.Add(1))
	testReduce(t, map[string]reduceCase{
		"after a poll without a token": {
			state: stateOf(offline, register("r"), drain("c")), in: SessionOpened{Hello: hello},
			vm: offline.SessionOpened(hello, t1), ready: Ready{"r", true},
		},
		"over a live one": {
			state: stateOf(live, register("r")), in: SessionOpened{Hello: hello},
			vm: live.SessionOpened(hello, t1), ready: Ready{"r", true},
		},
		"whose first command goes first": {
			state: stateOf(offline, drain("c"), register("r")), in: SessionOpened{Hello: hello},
			vm: offline.SessionOpened(hello, t1), ready: Ready{"c", false},
		},
		"once that has ended": {
			state: stateOf(live.waiting(noTime), drain("c").out(Stream, 2, t0), register("r")),
			in:    CancelRequested{"vm", "c"}, ready: Ready{"r", true},
			moved:  []Command{drain("c").out(Stream, 2, t0).endedAs(Cancelled, cancelledOut, t1)},
			answer: drain("c").out(Stream, 2, t0).endedAs(Cancelled, cancelledOut, t1),
		},
	})
}
