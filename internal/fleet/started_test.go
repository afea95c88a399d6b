package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// started is a delivery in the answer to a vm_started.
func started(e Epoch, boot int64, at time.Time) Delivery {
	d := via(HTTP, e, boot, at)
	d.Started = true
	return d
}

// startedOut is the register_runner r after delivery in the answer to a vm_started.
func startedOut(e Epoch, at time.Time) Command {
	c := register("r").deliveredBy(HTTP, e, at)
	c.Last.Started = true
	return c
}

// Each way in which a register_runner can be in flight, against each way in which it could
// be delivered again: whether it may be, and whether it blocks other commands.
func TestRegisterRunnerDeliveredAgain(t *testing.T) {
	t.Parallel()
	last := map[string]Delivery{
		"stream": via(Stream, 3, 2, t0), "poll": via(HTTP, 3, 2, t0), "answer": started(3, 2, t0),
	}
	next := map[string]Delivery{
		"same session": via(Stream, 3, 2, t1), "same session, new boot": via(Stream, 3, 3, t1),
		"new session": via(Stream, 4, 2, t1), "new session, new boot": via(Stream, 4, 3, t1),
		"poll": via(HTTP, 3, 2, t1), "poll, later session": via(HTTP, 4, 2, t1), "poll, new boot": via(HTTP, 3, 3, t1),
		"answer": started(3, 2, t1), "answer, later session": started(4, 2, t1), "answer, new boot": started(3, 3, t1),
	}
	type may struct{ again, others bool }
	want := map[string]may{
		"stream/same session": {false, false}, "stream/same session, new boot": {false, false},
		"stream/new session": {true, true}, "stream/new session, new boot": {true, true},
		"stream/poll": {true, true}, "stream/poll, later session": {true, true}, "stream/poll, new boot": {true, true},
		"stream/answer": {true, true}, "stream/answer, later session": {true, true}, "stream/answer, new boot": {true, true},

		"poll/same session": {false, false}, "poll/same session, new boot": {false, true},
		"poll/new session": {false, false}, "poll/new session, new boot": {true, true},
		"poll/poll": {false, false}, "poll/poll, later session": {false, false}, "poll/poll, new boot": {true, true},
		"poll/answer": {false, false}, "poll/answer, later session": {false, false}, "poll/answer, new boot": {true, true},

		"answer/same session": {false, false}, "answer/same session, new boot": {false, true},
		"answer/new session": {true, true}, "answer/new session, new boot": {true, true},
		"answer/poll": {false, false}, "answer/poll, later session": {false, false}, "answer/poll, new boot": {true, true},
		"answer/answer": {true, false}, "answer/answer, later session": {true, false}, "answer/answer, new boot": {true, true},
	}
	require.Len(t, want, len(last)*len(next))
	for was, l := range last {
		for is, d := range next {
			name := was + "/" + is
			c, err := register("r").MarkDelivered(l)
			require.NoError(t, err)
			got := may{c.Deliverable(d), !c.InFlight(d)}
			require.Equal(t, want[name], got, name)
			c.Attempts = c.MaxDeliveriesOrDefault()
			require.False(t, c.Deliverable(d), "%s, as often as it may", name)
			c.Attempts, d.At = 1, c.ExpiresAt
			require.False(t, c.Deliverable(d), "%s, past its deadline", name)
		}
	}
}

// Only a register_runner is delivered in an answer to vm_started. It overtakes pending
// commands, but not one in flight.
func TestNextInAnAnswer(t *testing.T) {
	t.Parallel()
	a := LeaseRequest{Via: HTTP, Started: true, At: t1}
	noToken := a
	noToken.WithoutToken = true
	r, s, out := register("r"), register("s"), startedOut(2, t0)
	for name, test := range map[string]struct {
		state State
		a     LeaseRequest
		next  CommandID
	}{
		"nothing":                     {stateOf(offlineVM()), a, ""},
		"another command":             {stateOf(offlineVM(), drain("c")), a, ""},
		"past another":                {stateOf(offlineVM(), drain("c"), r), a, "r"},
		"the first":                   {stateOf(offlineVM(), r, s), a, "r"},
		"while a poll has one":        {stateOf(offlineVM(), drain("c").deliveredBy(HTTP, 2, t0), r), a, ""},
		"while a poll has it":         {stateOf(offlineVM(), r.deliveredBy(HTTP, 2, t0)), a, ""},
		"after its session":           {stateOf(offlineVM(), r.deliveredBy(Stream, 2, t0).stopped()), a, "r"},
		"again":                       {stateOf(offlineVM(), out, s), a, "r"},
		"again, without a token":      {stateOf(offlineVM(), out, s), noToken, ""},
		"without a token":             {stateOf(offlineVM(), r, drain("c")), noToken, ""},
		"with a session":              {stateOf(liveVM(), r), a, ""},
		"a poll after it":             {stateOf(offlineVM(), out, drain("c")), LeaseRequest{Via: HTTP, At: t1}, ""},
		"the session after it":        {stateOf(liveVM(), startedOut(1, t0), drain("c")), LeaseRequest{Via: Stream, Epoch: 2, At: t1}, "r"},
		"what that session had first": {stateOf(liveVM(), drain("c"), startedOut(1, t0)), LeaseRequest{Via: Stream, Epoch: 2, At: t1}, "c"},
	} {
		next, err := test.state.Next(test.a)
		require.Equal(t, test.next, next.ID, name)
		require.Equal(t, test.next == "", err == ErrNothingDue, "%s: %v", name, err) //nolint:errorlint // it is not wrapped
		out, err := testRules.Reduce(test.state, LeaseRequested{"vm", "r", test.a}, t1)
		if test.next != "r" {
			require.Error(t, err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.a.Started, out.Command.Last.Started, name)
		require.Equal(t, test.a.Via, out.Command.Last.Via, name)
	}
}

// An agent that ignored the answer to vm_started gets its register_runner immediately on
// the session that it opens, however late that is: nothing has shown that its runner is
// registered. From then on it is as if it had been delivered only there.
func TestSessionAfterAnAnswer(t *testing.T) {
	t.Parallel()
	v := offlineVM().RequestRegistration(register("r"))
	opened := SessionOpened{Hello{VM: "vm"}, ""}
	for _, at := range []time.Time{t0.Add(time.Second), t0.Add(4 * time.Minute)} {
		out, err := testRules.Reduce(stateOf(v, startedOut(2, t0)), opened, at)
		require.NoError(t, err)
		require.Equal(t, Ready{"r", true}, out.Ready)
		require.Zero(t, out.State.VM.AwaitsRunnerUntil)
		waits := out.State.Commands[0]
		require.Equal(t, waits.ExpiresAt, waits.DueAt, "it may wait until its deadline for a token or for other commands")

		now := at.Add(30 * time.Minute)
		a := LeaseRequest{Via: Stream, Epoch: 3, At: now}
		out, err = testRules.Reduce(out.State, LeaseRequested{"vm", "r", a}, now)
		require.NoError(t, err)
		require.Equal(t, via(Stream, 3, 1, now), out.Command.Last)
		require.Equal(t, 2, out.Command.Attempts)
		require.Equal(t, now.Add(time.Minute), out.Command.DueAt)
		a.Written = "r"
		_, err = out.State.Next(a)
		require.ErrorIs(t, err, ErrNothingDue)
	}
}

// A register_runner whose last delivery was in the answer is followed by another one on the
// session, if the agent opens one: otherwise its runner would never be registered.
func TestSessionAfterTheLastDelivery(t *testing.T) {
	t.Parallel()
	c := startedOut(2, t0)
	c.MaxDeliveries = 1
	v := offlineVM().RequestRegistration(c)
	out, err := testRules.Reduce(stateOf(v, c), SessionOpened{Hello{VM: "vm"}, ""}, t1)
	require.NoError(t, err)
	require.Equal(t, TimedOut, out.Commands[0].State)
	require.Equal(t, "delivered 1 times and never acked: max_deliveries is reached", out.Commands[0].Reason)
	require.Equal(t, Requested, out.State.VM.Registration.State)
	require.Equal(t, CommandID("reg"), out.State.VM.Registration.Command)
	require.Equal(t, Ready{"reg", true}, out.Ready)
}

// The result of an answer is known after five minutes at the latest. Then the registration
// of the VM is requested again when it next connects or polls.
func TestAnswerWithoutProof(t *testing.T) {
	t.Parallel()
	c := startedOut(2, t0)
	require.Equal(t, t0.Add(5*time.Minute), c.DueAt)
	require.Equal(t, c, c.EndSession(9, t1), "it was not delivered on a session")
	require.Equal(t, drain("c").deliveredBy(HTTP, 2, t0), drain("c").deliveredBy(HTTP, 2, t0).BeginSession(t1), "delivered to a poll")
	out, err := testRules.Reduce(stateOf(offlineVM().RequestRegistration(c), c), Tick{"vm", "r", Live{}}, c.DueAt)
	require.NoError(t, err)
	require.Equal(t, TimedOut, out.Commands[0].State)
	require.Equal(t, "delivered in the answer to vm_started, but no runner_registered arrived", out.Commands[0].Reason)
	require.Equal(t, RegFailed, out.State.VM.Registration.State)
	for name, in := range map[string]Input{"a session": SessionOpened{Hello{VM: "vm"}, ""}, "a poll": Polled{"vm"}} {
		next, err := testRules.Reduce(out.State, in, c.DueAt)
		require.NoError(t, err)
		require.Equal(t, Requested, next.State.VM.Registration.State, name)
	}
}

// The proof ends it, whatever its history.
func TestAnswerIsProven(t *testing.T) {
	t.Parallel()
	c := startedOut(2, t0)
	e := eventAt(0, EventRunnerRegistered, t1)
	out, err := testRules.Reduce(stateOf(offlineVM().RequestRegistration(c), c), EventReceived{e}, t1)
	require.NoError(t, err)
	require.Equal(t, Succeeded, out.Commands[0].State)
	require.Equal(t, Registered, out.State.VM.Registration.State)
}
