package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// awaiting returns v after a session was opened at t1 on which a register_runner has to be
// delivered again.
func awaiting(v VM) VM {
	v.AwaitsRunnerUntil = t1.Add(runnerReportTimeout)
	return v
}

// When a drop loses both the ack and the proof of a registration, the runner is not
// registered twice: register_runner waits for the agent to report its runner before it is
// delivered again.
func TestAwaitsRunner(t *testing.T) {
	t.Parallel()
	later := t1.Add(time.Millisecond)
	beat := func(via Route, e Epoch, runner *Runner) Input {
		return HeartbeatReceived{&Heartbeat{Origin: Origin{VM: "vm", Via: via, Epoch: e, ReceivedAt: later}, Status: "ready", Runner: runner}}
	}
	for name, test := range map[string]struct {
		in      Input
		now     time.Time
		decided bool
		ready   Ready
	}{
		"a configured runner":                 {beat(Stream, 3, &Runner{Configured: true}), later, true, Ready{}},
		"an unconfigured runner":              {beat(Stream, 3, &Runner{}), later, true, Ready{"r", true}},
		"no report about the runner":          {beat(Stream, 3, nil), later, false, Ready{}},
		"a runner, on the superseded session": {beat(Stream, 2, &Runner{}), later, false, Ready{}},
		"a runner, over HTTP":                 {beat(HTTP, 0, &Runner{}), later, false, Ready{}},
		"a tick before its time":              {Tick{VM: "vm"}, t1.Add(runnerReportTimeout - 1), false, Ready{}},
		"silence":                             {Tick{VM: "vm"}, t1.Add(runnerReportTimeout), true, Ready{"r", true}},
		"another command":                     {CommandAccepted{New: drain("c")}, later, false, Ready{}},
		"its cancellation":                    {CancelRequested{VM: "vm", Command: "r"}, later, true, Ready{}},
		"the end of the session":              {SessionClosed{"vm", 3, ""}, later, true, Ready{}},
		"a newer session, which waits again":  {SessionOpened{Hello{VM: "vm"}, ""}, later, false, Ready{}},
	} {
		opened, err := testRules.Reduce(stateOf(requestedVM(), register("r").deliveredBy(Stream, 2, t0)), SessionOpened{Hello{VM: "vm"}, "r"}, t1)
		require.NoError(t, err)
		require.Equal(t, Ready{}, opened.Ready)
		_, err = opened.State.Next(LeaseRequest{Via: Stream, Epoch: 3, At: t1})
		require.ErrorIs(t, err, ErrNothingDue)

		out, err := testRules.Reduce(opened.State, test.in, test.now)
		require.NoError(t, err, name)
		require.Equal(t, test.decided, out.State.VM.AwaitsRunnerUntil.IsZero(), name)
		require.Equal(t, out.State.VM.nextTickAt(), out.State.VM.DueAt, name)
		require.Equal(t, test.ready, out.Ready, name)
	}
}

// A register_runner that was never sent is delivered without waiting.
func TestFirstRegistrationAwaitsNothing(t *testing.T) {
	t.Parallel()
	out, err := testRules.Reduce(stateOf(requestedVM(), register("r")), SessionOpened{Hello{VM: "vm"}, ""}, t1)
	require.NoError(t, err)
	require.Zero(t, out.State.VM.AwaitsRunnerUntil)
	require.Equal(t, Ready{"r", true}, out.Ready)
}
