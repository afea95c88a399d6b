package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every open command has a reason, and it is the true one.
func TestWaits(t *testing.T) {
	t.Parallel()
	now := t0.Add(time.Minute)
	pending := func(id, kind string, seq int64) Command {
		c := inState(t, Pending)
		c.ID, c.Type, c.Seq = CommandID(id), kind, seq
		return c
	}
	register, a, b := pending("reg-1", RegisterRunner, 1), pending("a", "drain", 2), pending("b", "drain", 3)
	out := inState(t, Delivered)
	out.ID = "out"
	polled, err := inState(t, Pending).MarkDelivered(via(HTTP, 1, 1, t0))
	require.NoError(t, err)
	started := polled
	started.Last.Started = true
	deferred := out
	deferred.DueAt = out.DueAt.Add(time.Second)

	connected := VM{ID: "vm", Connected: true, Epoch: 1, Boot: 1, ConnectedAt: t0.Add(time.Second)}
	offline := VM{ID: "vm", Epoch: 1, Boot: 1, DisconnectedAt: t0.Add(2 * time.Second)}
	tokenless := connected
	tokenless.TokenWait = TokenWait{}.Fail("token file: no such file", now.Add(-4*time.Second))
	registered := connected
	registered.Registration = Registration{State: Registered, ProvenAt: t0}
	for name, test := range map[string]struct {
		c      Command
		vm     VM
		open   []Command
		reason string
		since  time.Time
	}{
		"never seen":                     {a, VM{}, []Command{a}, "the VM has never been seen", t0},
		"only polls":                     {a, VM{ID: "vm", Boot: 1}, []Command{a}, "the VM has no session yet", t0},
		"offline":                        {a, offline, []Command{a}, "VM offline since 2026-01-02T03:04:07Z", t0.Add(2 * time.Second)},
		"delivered, then offline":        {out, offline, []Command{out, a}, "VM offline since 2026-01-02T03:04:07Z", t0.Add(2 * time.Second)},
		"next":                           {a, connected, []Command{a, b}, "about to be delivered", t0.Add(time.Second)},
		"behind a pending one":           {b, connected, []Command{a, b}, "waits for command a", t0},
		"behind one in flight":           {a, connected, []Command{out, a}, "waits for command out", t0},
		"behind one delivered to a poll": {a, offline, []Command{polled, a}, "waits for command c", t0},
		"without a token": {
			register, tokenless,
			[]Command{register, a},
			"no registration token (token file: no such file), next try in 3 s", now.Add(-4 * time.Second),
		},
		"ahead of one without a token": {a, tokenless, []Command{register, a}, "about to be delivered", t0.Add(time.Second)},
		"delivered":                    {out, connected, []Command{out}, "waits for its ack until 2026-01-02T03:05:05Z", t0},
		"delivered, and the session is silent": {
			deferred, connected,
			[]Command{deferred},
			"waits for its ack; nothing has arrived on its session since the delivery", t0,
		},
		"delivered to an agent that reads no commands": {
			out, registered,
			[]Command{out},
			"waits for its ack until 2026-01-02T03:05:05Z; the runner is registered, and such an agent usually reads no commands", t0,
		},
		"delivered to a poll": {
			polled, offline,
			[]Command{polled},
			"delivered to a poll, waits for evidence of its result until 2026-01-02T03:05:05Z", t0,
		},
		"delivered in the answer to vm_started": {
			started, offline,
			[]Command{started},
			"delivered in the answer to vm_started, waits for evidence of its result until 2026-01-02T03:05:05Z", t0,
		},
		"delivered in the answer to vm_started, then a session": {started, live(started), []Command{started}, "about to be delivered", t0},
		"ended": {inState(t, Succeeded), connected, nil, "", time.Time{}},
	} {
		require.Equal(t, Waiting{test.reason, test.since}, test.c.Waits(test.vm, test.open, now), name)
	}
	for _, s := range CommandStates {
		require.Equal(t, s.Terminal(), inState(t, s).WaitsAlone() == Waiting{}, s)
	}
	require.Equal(t, "waits to be delivered again", inState(t, Delivered).EndSession(1, t0).WaitsAlone().Reason)
	require.Equal(t, "waits to be delivered again", started.BeginSession(t0).WaitsAlone().Reason)
}

// The attempts to get a token are frequent at first, then every 15 seconds.
func TestNextTry(t *testing.T) {
	t.Parallel()
	w := TokenWait{}.Fail("it is empty", t0)
	require.Equal(t, TokenWait{Why: "it is too long", Since: t0}, w.Fail("it is too long", t0.Add(time.Hour)), "since stays")
	var tries []int
	for now := t0; len(tries) < 7; {
		now = w.NextTry(now)
		tries = append(tries, int(now.Sub(t0)/time.Second))
	}
	require.Equal(t, []int{1, 3, 7, 15, 30, 45, 60}, tries)
	require.Equal(t, t0.Add(8*time.Hour), w.NextTry(t0.Add(8*time.Hour-1)))
	require.Equal(t, t0.Add(time.Second), w.NextTry(t0.Add(-time.Hour)), "a clock that was set back")
	require.Equal(t, TokenWait{Why: "it is empty", Since: t0.Add(-time.Hour)}, w.Fail("it is empty", t0.Add(-time.Hour)), "until the next attempt")
}

// While the registration of a VM is requested, the VM states what it waits for.
func TestVMWaits(t *testing.T) {
	t.Parallel()
	v := VM{
		Connected: true, Epoch: 1, DisconnectedAt: t0.Add(time.Minute),
		Registration: Registration{State: Requested, Command: "reg-1", RequestedAt: t0},
	}
	require.Equal(t, Waiting{"waits for its runner to register, by command reg-1", t0}, v.Waiting(t0))
	v.TokenWait = TokenWait{}.Fail("it is empty", t0.Add(time.Second))
	require.Equal(t, Waiting{"no registration token (it is empty), next try in 1 s", t0.Add(time.Second)}, v.Waiting(t0.Add(time.Second)))
	v.Connected = false
	require.Equal(t, Waiting{"VM offline since 2026-01-02T03:05:05Z", t0.Add(time.Minute)}, v.Waiting(t0))
	polls := v
	polls.Epoch = 0
	require.Equal(t, "no registration token (it is empty), next try when the VM polls", polls.Waiting(t0).Reason)
	for _, s := range []RegistrationState{Unregistered, Registered, RegFailed} {
		v.Registration.State = s
		require.Zero(t, v.Waiting(t0), s)
	}
}

// The step of a change is derived from the command's times.
func TestStep(t *testing.T) {
	t.Parallel()
	pending := inState(t, Pending)
	at := t0.Add(time.Second)
	out, err := pending.MarkDelivered(via(Stream, 1, 1, at))
	require.NoError(t, err)
	acked, err := out.MarkAcked(Ack{CommandID: "c", Success: true}, at.Add(1))
	require.NoError(t, err)
	cancelled, err := out.Cancel(at.Add(1))
	require.NoError(t, err)
	late, err := cancelled.MarkAcked(Ack{CommandID: "c"}, at.Add(2))
	require.NoError(t, err)
	for name, test := range map[string]struct {
		c    Command
		at   time.Time
		step Step
	}{
		"accepted":      {pending, t0, StepAccepted},
		"delivered":     {out, at, StepDelivered},
		"session ended": {out.EndSession(1, at.Add(1)), at.Add(1), StepNone},
		"not written":   {out.ReleaseLease(1), at.Add(1), StepNotWritten},
		"acked":         {acked, at.Add(1), StepEnded},
		"cancelled":     {cancelled, at.Add(1), StepEnded},
		"late":          {late, at.Add(2), StepLateAck},
		"written again": {cancelled, at.Add(2), StepNone},
	} {
		require.Equal(t, test.step, Change{At: test.at, Command: &test.c}.Step(), name)
	}
	require.Equal(t, StepNone, Change{At: t0, VM: &VM{}}.Step())
}
