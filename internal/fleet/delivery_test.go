package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A command, pending or in flight, is never delivered after its deadline, nor more often
// than its limit.
func TestDeliverableInTimeOnly(t *testing.T) {
	t.Parallel()
	for _, s := range []CommandState{Pending, Delivered} {
		c := inState(t, s)
		d := Delivery{Via: Stream, Epoch: 2, Boot: 1, At: c.ExpiresAt.Add(-1)}
		c.DueAt = c.ExpiresAt.Add(time.Hour) // an ack clock that runs past the deadline
		require.True(t, c.Deliverable(d), s)
		d.At = c.ExpiresAt
		require.False(t, c.Deliverable(d), s)
		c.Attempts, d.At = 3, t0
		require.False(t, c.Deliverable(d), "max_deliveries")
	}
}

// Records of earlier versions have no limit.
func TestMaxDeliveriesOfOldRecords(t *testing.T) {
	t.Parallel()
	require.Equal(t, DefaultMaxDeliveries, Command{}.MaxDeliveriesOrDefault())
	require.Equal(t, 2, Command{MaxDeliveries: 2}.MaxDeliveriesOrDefault())
}

// The last permitted delivery ends with its session.
func TestExhausted(t *testing.T) {
	t.Parallel()
	c := inState(t, Pending)
	for epoch := Epoch(1); epoch <= 3; epoch++ {
		var err error
		c, err = c.MarkDelivered(via(Stream, epoch, 1, t0))
		require.NoError(t, err)
		require.Equal(t, Delivered, c.State)
		c = c.EndSession(epoch, t0)
	}
	require.Equal(t, TimedOut, c.State)
	require.Equal(t, "delivered 3 times and never acked: max_deliveries is reached", c.Reason)
}

// A lease that was not written is released only once, whether the failed write or the end
// of the session comes first. An earlier delivery still counts.
func TestNotWrittenOnce(t *testing.T) {
	t.Parallel()
	c, err := inState(t, Delivered).EndSession(1, t0).MarkDelivered(via(Stream, 2, 1, t0))
	require.NoError(t, err)
	c = c.ReleaseLease(2)
	require.Equal(t, 1, c.Attempts)
	require.False(t, c.LeasedTo(2))
	require.False(t, c.InFlight(via(Stream, 2, 1, t0)), "a released command blocks no other")
	require.Equal(t, c, c.ReleaseLease(2))
	c = c.Expire(c.ExpiresAt, time.Time{}, VM{})
	require.Equal(t, TimedOut, c.State, "it was delivered")
}

// While nothing has arrived on its live session since the delivery, a timeout is postponed,
// up to the deadline.
func TestTimeoutPostponedInSilence(t *testing.T) {
	t.Parallel()
	c := inState(t, Delivered)
	due := c.DueAt
	for name, test := range map[string]struct {
		now, lastMessageAt time.Time
		vm                 VM
		state              CommandState
	}{
		"silent":             {due, t0, live(c), Delivered},
		"no message":         {due, time.Time{}, live(c), Delivered},
		"message since":      {due, t0.Add(1), live(c), TimedOut},
		"its session ended":  {due, t0, VM{Epoch: 1}, TimedOut},
		"on another session": {due, t0, VM{Connected: true, Epoch: 2}, TimedOut},
		"past its deadline":  {c.ExpiresAt, t0, live(c), TimedOut},
	} {
		after := c.Expire(test.now, test.lastMessageAt, test.vm)
		require.Equal(t, test.state, after.State, name)
		if test.state == Delivered {
			require.Equal(t, due.Add(time.Minute/16), after.DueAt, name)
		}
	}
	for since, wait := range map[time.Duration]time.Duration{time.Second: time.Second, 30 * time.Minute: 15 * time.Second} {
		c.DueAt = t0.Add(since)
		require.Equal(t, c.DueAt.Add(wait), c.Expire(c.DueAt, t0, live(c)).DueAt, since)
	}
	polled, err := inState(t, Pending).MarkDelivered(via(HTTP, 1, 1, t0))
	require.NoError(t, err)
	require.Equal(t, TimedOut, polled.Expire(polled.DueAt, t0, live(polled)).State, "there is no session to wait for")
}

// The reason of a timeout contains what an operator needs to know.
func TestTimeoutReasons(t *testing.T) {
	t.Parallel()
	c := inState(t, Delivered)
	require.Equal(t, "no ack within 1m0s", c.Expire(c.DueAt, c.DueAt, VM{}).Reason)
	require.Equal(t, "delivered, but not acked before its deadline", c.Expire(c.ExpiresAt, t0, VM{}).Reason)
	v := VM{Registration: Registration{State: Registered, ProvenAt: t0}, LastAckAt: t0.Add(-1)}
	require.Contains(t, c.Expire(c.DueAt, c.DueAt, v).Reason, "reads no commands")
	require.True(t, v.ReadsNoCommands())
	v.LastAckAt = t0.Add(1)
	require.NotContains(t, c.Expire(c.DueAt, c.DueAt, v).Reason, "reads no commands", "this one does")
}

func TestNextDelivery(t *testing.T) {
	t.Parallel()
	d := via(Stream, 2, 1, t0)
	command := func(id, kind string, s CommandState, last Delivery) Command {
		c := inState(t, Pending)
		c.ID, c.Type, c.State, c.Last = CommandID(id), kind, s, last
		if s == Delivered {
			c.Attempts = 1
		}
		return c
	}
	register := command("r", RegisterRunner, Pending, Delivery{})
	lost := command("r", RegisterRunner, Delivered, via(Stream, 1, 1, t0))
	a, b := command("a", "drain", Pending, Delivery{}), command("b", "drain", Pending, Delivery{})
	out := command("o", "drain", Delivered, via(Stream, 2, 1, t0))
	polled := command("p", "drain", Delivered, via(HTTP, 2, 1, t0))
	expired := command("x", "drain", Pending, Delivery{})
	expired.ExpiresAt = t0
	overdue := out
	overdue.ExpiresAt = t0
	for name, test := range map[string]struct {
		open         []Command
		written      CommandID
		withoutToken bool
		next         CommandID
	}{
		"nothing":                            {},
		"the oldest":                         {open: []Command{a, b}, next: "a"},
		"one in flight":                      {open: []Command{out, a}, written: "o"},
		"one leased and not written":         {open: []Command{out, a}, next: "o"},
		"not after its deadline":             {open: []Command{overdue, a}},
		"one in flight that has overtaken":   {open: []Command{register, out, a}, written: "o"},
		"one with a poll":                    {open: []Command{polled, a}},
		"delivered on the session before":    {open: []Command{lost, a}, next: "r"},
		"past its deadline":                  {open: []Command{expired, a}, next: "a"},
		"waiting for a token":                {open: []Command{register, a}, withoutToken: true, next: "a"},
		"waiting for a token again":          {open: []Command{lost, a}, withoutToken: true, next: "a"},
		"nothing but what waits for a token": {open: []Command{register}, withoutToken: true},
		"with its token":                     {open: []Command{register, a}, next: "r"},
	} {
		next, err := NextDelivery(test.open, d, test.written, test.withoutToken)
		require.Equal(t, test.next, next.ID, name)
		require.Equal(t, test.next == "", err == ErrNothingDue, name) //nolint:errorlint // it is not wrapped
	}
}
