package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// inState returns a command that reached the state by transitions alone.
func inState(tb testing.TB, s CommandState) Command {
	tb.Helper()
	c, err := CommandRequest{ID: "c", VM: "vm", Type: "drain"}.Accept(CommandDefaults{time.Hour, time.Minute, 3}, t0)
	require.NoError(tb, err)
	if s == Pending {
		return c
	}
	if s == Expired {
		return c.Expire(t0.Add(time.Hour), time.Time{}, VM{})
	}
	c, err = c.MarkDelivered(Delivery{Via: Stream, Epoch: 1, Boot: 1, At: t0})
	require.NoError(tb, err)
	switch s {
	case Succeeded, Failed:
		c, err = c.MarkAcked(Ack{CommandID: "c", Success: s == Succeeded}, t0)
	case TimedOut:
		c = c.Expire(t0.Add(time.Minute), t0, VM{})
	case Cancelled:
		c, err = c.Cancel(t0)
	case Pending, Delivered, Expired:
	}
	require.NoError(tb, err)
	require.Equal(tb, s, c.State)
	return c
}

// via is a delivery that is not in the answer to a vm_started.
func via(r Route, e Epoch, boot int64, at time.Time) Delivery {
	return Delivery{Via: r, Epoch: e, Boot: boot, At: at}
}

// step is a transition; try returns the command after it.
type step struct {
	name string
	do   func(Command) (Command, error)
}

var steps = []step{
	{"deliver", func(c Command) (Command, error) { return c.MarkDelivered(via(Stream, 1, 1, t0)) }},
	{"deliver on a newer session", func(c Command) (Command, error) { return c.MarkDelivered(via(Stream, 2, 1, t0)) }},
	{"deliver too late", func(c Command) (Command, error) { return c.MarkDelivered(via(Stream, 2, 1, t0.Add(2*time.Hour))) }},
	{"ack success", func(c Command) (Command, error) { return c.MarkAcked(Ack{CommandID: "c", Success: true}, t0) }},
	{"ack failure", func(c Command) (Command, error) { return c.MarkAcked(Ack{CommandID: "c"}, t0) }},
	{"prove", func(c Command) (Command, error) { return c.MarkProven("seen", t0) }},
	{"expire too early", func(c Command) (Command, error) { return c.Expire(t0.Add(time.Minute-1), t0, VM{}), nil }},
	{"expire", func(c Command) (Command, error) { return c.Expire(t0.Add(time.Hour), t0, VM{}), nil }},
	{"expire in silence", func(c Command) (Command, error) { return c.Expire(t0.Add(time.Minute), t0, live(c)), nil }},
	{"not written", func(c Command) (Command, error) { return c.ReleaseLease(c.Last.Epoch), nil }},
	{"cancel", func(c Command) (Command, error) { return c.Cancel(t0) }},
	{"begin a session", func(c Command) (Command, error) { return c.BeginSession(t0), nil }},
	{"end the session", func(c Command) (Command, error) { return c.EndSession(1, t0), nil }},
}

// live is the VM of c with the session on which c is in flight.
func live(c Command) VM { return VM{ID: c.VM, Connected: true, Epoch: c.Last.Epoch} }

// TestTransitions checks every state against every step. Combinations that are not listed
// leave the state unchanged without an error.
func TestTransitions(t *testing.T) {
	t.Parallel()
	type outcome struct {
		state CommandState
		err   error
	}
	want := map[string]outcome{
		"PENDING/deliver":                      {Delivered, nil},
		"PENDING/deliver on a newer session":   {Delivered, nil},
		"PENDING/deliver too late":             {Pending, ErrNotDue},
		"PENDING/ack success":                  {Pending, ErrNotDelivered},
		"PENDING/ack failure":                  {Pending, ErrNotDelivered},
		"PENDING/prove":                        {Pending, ErrNotDelivered},
		"PENDING/expire":                       {Expired, nil},
		"PENDING/cancel":                       {Cancelled, nil},
		"DELIVERED/deliver":                    {Delivered, ErrNotDue},
		"DELIVERED/deliver on a newer session": {Delivered, nil},
		"DELIVERED/deliver too late":           {Delivered, ErrNotDue},
		"DELIVERED/ack success":                {Succeeded, nil},
		"DELIVERED/ack failure":                {Failed, nil},
		"DELIVERED/prove":                      {Succeeded, nil},
		"DELIVERED/expire":                     {TimedOut, nil},
		"DELIVERED/not written":                {Pending, nil},
		"DELIVERED/cancel":                     {Cancelled, nil},
	}
	for _, s := range []CommandState{Succeeded, Failed, TimedOut, Expired, Cancelled} {
		for _, name := range []string{"deliver", "deliver on a newer session", "deliver too late"} {
			want[string(s)+"/"+name] = outcome{s, ErrNotDue}
		}
		want[string(s)+"/prove"] = outcome{s, ErrNotDelivered}
		if s != Cancelled {
			want[string(s)+"/cancel"] = outcome{s, ErrEnded}
		}
	}
	for _, s := range CommandStates {
		for _, st := range steps {
			t.Run(fmt.Sprintf("%s/%s", s, st.name), func(t *testing.T) {
				t.Parallel()
				before := inState(t, s)
				after, err := st.do(before)
				expected, ok := want[string(s)+"/"+st.name]
				if !ok {
					expected = outcome{s, nil}
				}
				require.ErrorIs(t, err, expected.err)
				require.Equal(t, expected.state, after.State)
				requireConsistent(t, before, after)
			})
		}
	}
}

// requireConsistent checks the invariants of every command after every step.
func requireConsistent(tb testing.TB, before, after Command) {
	tb.Helper()
	require.Equal(tb, after.State.Terminal(), !after.FinishedAt.IsZero(), "finished_at is set at the end")
	require.Equal(tb, after.State.Terminal(), after.DueAt.IsZero(), "a command that has ended is never due")
	require.Equal(tb, after.State.Terminal(), after.Reason != "", "an end has a reason")
	require.GreaterOrEqual(tb, after.Attempts, before.Attempts-1)
	require.LessOrEqual(tb, after.Attempts, after.MaxDeliveries)
	if before.State.Terminal() {
		require.Equal(tb, before.State, after.State, "terminal is terminal")
		require.Equal(tb, before.FinishedAt, after.FinishedAt)
	}
	if before.Ack != nil {
		require.Equal(tb, before.Ack, after.Ack, "the first ack is kept")
	}
	if after.State == Expired || after.State == Pending {
		require.Zero(tb, after.Attempts, "never delivered")
		require.Nil(tb, after.Ack)
	}
	require.True(tb, before.SameRequest(after), "no step changes what was asked for")
}

func TestLateAckIsKept(t *testing.T) {
	t.Parallel()
	for _, s := range []CommandState{TimedOut, Cancelled} {
		c, err := inState(t, s).MarkAcked(Ack{CommandID: "c", Success: true}, t0)
		require.NoError(t, err)
		require.Equal(t, s, c.State)
		require.True(t, c.Ack.Success)
		require.Equal(t, t0, c.AckedAt)
	}
	c, err := inState(t, Expired).MarkAcked(Ack{CommandID: "c", Success: true}, t0)
	require.NoError(t, err)
	require.Nil(t, c.Ack, "a command that was never delivered has no ack")
}

// TestAckClock checks that a command leased by a controller that crashed times out at its
// deadline, not at its ack timeout.
func TestAckClock(t *testing.T) {
	t.Parallel()
	c := inState(t, Delivered)
	require.Equal(t, t0.Add(time.Minute), c.DueAt)
	require.Equal(t, c, c.EndSession(0, t0), "another session's end")
	c = c.EndSession(1, t0)
	require.Equal(t, c.ExpiresAt, c.DueAt)
	c, err := c.MarkDelivered(via(Stream, 2, 1, t0.Add(30*time.Minute)))
	require.NoError(t, err)
	require.Equal(t, t0.Add(31*time.Minute), c.DueAt)
}

func TestPolledDelivery(t *testing.T) {
	t.Parallel()
	c, err := inState(t, Pending).MarkDelivered(via(HTTP, 0, 1, t0))
	require.NoError(t, err)
	require.Equal(t, t0.Add(time.Minute), c.DueAt)
	for _, d := range []Delivery{via(HTTP, 0, 1, t0), via(Stream, 1, 1, t0), via(HTTP, 5, 1, t0)} {
		require.False(t, c.Deliverable(d), "delivered to a poll once per boot")
	}
	require.True(t, c.Deliverable(via(HTTP, 0, 2, t0)))
	require.True(t, c.Deliverable(via(Stream, 1, 2, t0)))
	require.Equal(t, c, c.EndSession(1, t0))
}

func TestStreamRedeliveryNeedsANewSession(t *testing.T) {
	t.Parallel()
	c := inState(t, Delivered)
	require.False(t, c.Deliverable(via(Stream, 1, 2, t0)), "not on the same stream, whatever the boot")
	require.True(t, c.Deliverable(via(HTTP, 1, 1, t0)), "the stream is over for an agent that polls")
}

// FuzzTransitions checks the invariants over any sequence of steps.
func FuzzTransitions(f *testing.F) {
	f.Add([]byte{0, 3, 7})
	f.Add([]byte{0, 11, 1, 4, 3, 10})
	f.Fuzz(func(t *testing.T, path []byte) {
		c := inState(t, Pending)
		for _, p := range path[:min(len(path), 50)] {
			before := c
			after, err := steps[int(p)%len(steps)].do(c)
			requireConsistent(t, before, after)
			if err != nil {
				require.Equal(t, before, after, "an error changes nothing")
			}
			c = after
		}
	})
}
