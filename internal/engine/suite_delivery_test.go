package engine_test

import (
	"fmt"
	"math"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func testIdempotency(f *fixture) {
	t := f.T
	first := f.send("a", "vm")
	f.later(time.Second)
	again := f.send("a", "vm")
	require.Equal(t, first, again, "the same request returns the existing record")

	other := f.request("a", "vm", "drain")
	other.Params.Strings = map[string]string{"x": "y"}
	_, err := f.enqueue(other)
	require.ErrorIs(t, err, fleet.ErrIDTaken)
	_, err = f.enqueue(f.request("a", "vm2", "drain"))
	require.ErrorIs(t, err, fleet.ErrIDTaken)
	require.Equal(t, first, f.command("a"))
}

func testOrder(f *fixture) {
	t := f.T
	v := f.registered("vm")
	for i := range 30 {
		f.send(fmt.Sprintf("c%02d", i), "vm")
	}
	for i := range 30 {
		c := f.mustDeliver("vm", v.Epoch)
		require.Equal(t, fmt.Sprintf("c%02d", i), string(c.ID), "the order of acceptance")
		f.nothingDue("vm", v.Epoch)
		f.ack(c, v.Epoch, i%2 == 0)
	}
	f.nothingDue("vm", v.Epoch)
}

func testRedelivery(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("a", "vm")
	f.send("b", "vm")
	require.Equal(t, 1, f.mustDeliver("vm", v.Epoch).Attempts)
	f.drop("vm", v.Epoch)
	v = f.connect("vm")
	c := f.mustDeliver("vm", v.Epoch)
	require.Equal(t, "a", string(c.ID))
	require.Equal(t, 2, c.Attempts)
	f.nothingDue("vm", v.Epoch)

	// The same without the end of the previous session: the newer one comes first.
	v = f.connect("vm")
	require.Equal(t, 3, f.mustDeliver("vm", v.Epoch).Attempts)
	f.ack(c, v.Epoch, true)
	require.Equal(t, "b", string(f.mustDeliver("vm", v.Epoch).ID))
}

// A command with no other before it is leased when it is accepted; its session then sends
// it, once, and no other does.
func testLeasedAtOnce(f *fixture) {
	t := f.T
	require.Equal(t, fleet.Pending, f.send("unknown", "other").State)
	v := f.registered("vm")
	accepted := f.request("a", "vm", "drain")
	f.later(time.Second)
	a, err := f.enqueue(accepted)
	require.NoError(t, err)
	require.Equal(t, fleet.Delivered, a.State)
	require.Equal(t, fleet.Delivery{Via: fleet.Stream, Epoch: v.Epoch, Boot: v.Boot, At: f.now}, a.Last)
	require.Equal(t, f.now.Add(a.AckTimeout), a.DueAt)
	require.Equal(t, 1, a.Attempts)
	require.Equal(t, a, f.command("a"))
	last := f.LastChange()
	changes, _, err := f.Changes(f.Context(), store.ChangeQuery{After: last - 2}, 2)
	require.NoError(t, err)
	for i, state := range []fleet.CommandState{fleet.Pending, fleet.Delivered} {
		require.Equal(t, accepted.ID, changes[i].Command.ID)
		require.Equal(t, state, changes[i].Command.State, "each step of its lifecycle is a change")
	}
	require.Equal(t, []time.Time{a.AcceptedAt, a.Last.At}, []time.Time{changes[0].At, changes[1].At})
	require.Equal(t, fleet.Pending, f.send("b", "vm").State, "another is in flight")

	_, err = f.poll()
	require.ErrorIs(t, err, fleet.ErrNothingDue)
	require.Equal(t, a, f.mustDeliver("vm", v.Epoch))
	f.nothingDue("vm", v.Epoch)
	f.ack(a, v.Epoch, true)
	f.ack(f.mustDeliver("vm", v.Epoch), v.Epoch, true)

	register, err := f.enqueue(f.request("own", "vm", fleet.RegisterRunner))
	require.NoError(t, err)
	require.Equal(t, fleet.Pending, register.State, "its token has not been fetched yet")
	f.ack(f.mustDeliver("vm", v.Epoch), v.Epoch, true)

	// The session ends before it has sent what was leased to it.
	f.send("c", "vm")
	f.drop("vm", v.Epoch)
	require.Equal(t, fleet.Pending, f.command("c").State)
	require.Zero(t, f.command("c").Attempts)
	require.Equal(t, fleet.Pending, f.send("d", "vm").State)
	v = f.connect("vm")
	c := f.mustDeliver("vm", v.Epoch)
	require.Equal(t, "c", string(c.ID))
	require.Equal(t, 1, c.Attempts)
	f.ack(c, v.Epoch, true)
	require.Equal(t, "d", string(f.mustDeliver("vm", v.Epoch).ID))
	f.drop("vm", v.Epoch)
	_, err = f.cancel("d", f.now)
	require.NoError(t, err)
	require.Equal(t, fleet.Pending, f.send("e", "vm").State, "the VM is not connected")
}

func testLeaseOfNext(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("a", "vm")
	f.send("b", "vm")
	at := fleet.LeaseRequest{Via: fleet.Stream, Epoch: v.Epoch, At: f.now}
	_, err := f.lease("vm", "b", at)
	require.ErrorIs(t, err, fleet.ErrNotDue, "a comes first")
	_, err = f.cancel("a", f.now)
	require.NoError(t, err)
	_, err = f.lease("vm", "a", at)
	require.ErrorIs(t, err, fleet.ErrNotDue)
	_, err = f.lease("vm", "b", at)
	require.NoError(t, err)
	_, err = f.lease("vm", "b", at)
	require.ErrorIs(t, err, fleet.ErrNotDue, "it is in flight")
}

func testFencing(f *fixture) {
	t := f.T
	v1 := f.registered("vm")
	f.send("a", "vm")
	a := f.mustDeliver("vm", v1.Epoch)
	v2 := f.connect("vm")
	require.Greater(t, v2.Epoch, v1.Epoch)

	_, err := f.deliver("vm", v1.Epoch)
	require.ErrorIs(t, err, fleet.ErrSuperseded)
	_, err = f.lease("vm", "a", fleet.LeaseRequest{Via: fleet.Stream, Epoch: v1.Epoch, At: f.now})
	require.ErrorIs(t, err, fleet.ErrSuperseded)
	_, _, err = f.answer("vm", v1.Epoch, fleet.Ack{CommandID: "a", Success: true}, f.now)
	require.ErrorIs(t, err, fleet.ErrSuperseded)
	require.Equal(t, fleet.Delivered, f.command(a.ID).State)

	f.beat("vm", v1.Epoch, "from_the_old", true)
	require.NotEqual(t, "from_the_old", f.vm("vm").Status)
	f.drop("vm", v1.Epoch)
	require.True(t, f.vm("vm").Connected, "the end of an old session does not affect the new one")
	f.drop("vm", v2.Epoch)
	require.False(t, f.vm("vm").Connected)

	v2 = f.vm("vm")
	c, _, err := f.answer("vm", v1.Epoch, fleet.Ack{CommandID: "a", Success: true}, v2.ConnectedAt.Add(-1))
	require.NoError(t, err)
	require.Equal(t, fleet.Succeeded, c.State, "it arrived before the newer session")
	require.Equal(t, v2.LastSeenAt, f.vm("vm").LastSeenAt)
}

func testAckClock(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("a", "vm")
	f.mustDeliver("vm", v.Epoch)
	f.drop("vm", v.Epoch)
	f.later(10 * time.Minute) // far beyond the ack timeout
	n := f.sweep(100)
	require.Zero(t, n, "it may never have been sent, and must be delivered again")
	v = f.connect("vm")
	require.Equal(t, "a", string(f.mustDeliver("vm", v.Epoch).ID))

	// The crash of a controller has the same effect on all its sessions.
	n, err := f.ResetSessions(f.Context(), f.now)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.False(t, f.vm("vm").Connected)
	f.later(10 * time.Minute)
	n = f.sweep(100)
	require.Zero(t, n)

	f.later(time.Hour)
	n = f.sweep(100)
	require.Equal(t, 1, n, "its deadline ends it anyway")
	require.Equal(t, fleet.TimedOut, f.command("a").State)
}

func testSweep(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("out", "vm")
	f.send("next", "vm")
	f.mustDeliver("vm", v.Epoch)
	waiting := f.request("waiting", "other", "drain")
	waiting.ExpiresAt = f.now.Add(time.Minute)
	waiting.DueAt = waiting.ExpiresAt
	_, err := f.enqueue(waiting)
	require.NoError(t, err)

	f.later(30*time.Second - 1)
	n := f.sweep(100)
	require.Zero(t, n)
	f.later(1)
	n = f.sweep(100)
	require.Equal(t, 1, n)
	out := f.command("out")
	require.Equal(t, fleet.TimedOut, out.State)
	require.Equal(t, f.now, out.FinishedAt)
	require.Equal(t, "next", string(f.mustDeliver("vm", v.Epoch).ID), "the next one is delivered")

	f.later(30 * time.Second)
	f.sweep(1)
	f.sweep(1)
	require.Equal(t, fleet.Expired, f.command("waiting").State)
	require.Equal(t, fleet.TimedOut, f.command("next").State)

	// An overdue command is not delivered, and blocks nothing once it is swept.
	f.send("held", "vm")
	f.send("late", "vm")
	f.mustDeliver("vm", v.Epoch)
	f.later(2 * time.Hour)
	f.send("fresh", "vm")
	f.nothingDue("vm", v.Epoch)
	f.sweep(10)
	require.Equal(t, "fresh", string(f.mustDeliver("vm", v.Epoch).ID))
	require.Equal(t, fleet.TimedOut, f.command("held").State)
	require.Equal(t, fleet.Expired, f.command("late").State)
}

func testCancel(f *fixture) {
	t := f.T
	v := f.registered("vm")
	for _, id := range []string{"a", "b", "c"} {
		f.send(id, "vm")
	}
	f.mustDeliver("vm", v.Epoch)
	for _, id := range []fleet.CommandID{"a", "b"} {
		c, err := f.cancel(id, f.now)
		require.NoError(t, err)
		require.Equal(t, fleet.Cancelled, c.State)
		again, err := f.cancel(id, f.later(time.Second))
		require.NoError(t, err)
		require.Equal(t, c, again)
	}
	c := f.mustDeliver("vm", v.Epoch)
	require.Equal(t, "c", string(c.ID))
	f.ack(c, v.Epoch, true)
	_, err := f.cancel("c", f.now)
	require.ErrorIs(t, err, fleet.ErrEnded)
	_, err = f.cancel("none", f.now)
	require.ErrorIs(t, err, fleet.ErrNotFound)
}

func testAcks(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.registered("other")
	f.send("a", "vm")
	f.send("b", "vm")
	_, _, err := f.answer("vm", v.Epoch, fleet.Ack{CommandID: "b", Success: true}, f.now)
	require.ErrorIs(t, err, fleet.ErrNotDelivered)
	_, _, err = f.answer("vm", v.Epoch, fleet.Ack{CommandID: "none", Success: true}, f.now)
	require.ErrorIs(t, err, fleet.ErrNotFound)

	a := f.mustDeliver("vm", v.Epoch)
	_, _, err = f.answer("other", 1, fleet.Ack{CommandID: "a", Success: true}, f.now)
	require.ErrorIs(t, err, fleet.ErrNotFound, "a VM cannot ack for another")
	require.Equal(t, fleet.Delivered, f.command("a").State)

	ack := fleet.Ack{CommandID: "a", Message: "not yet implemented", Result: map[string]string{"k": "v"}}
	c, late, err := f.answer("vm", v.Epoch, ack, f.later(time.Second))
	require.NoError(t, err)
	require.False(t, late)
	require.Equal(t, fleet.Failed, c.State)
	require.Equal(t, c, f.command("a"))
	require.Equal(t, &ack, c.Ack)
	require.Equal(t, f.now, c.AckedAt)
	_, late, err = f.answer("vm", v.Epoch, fleet.Ack{CommandID: a.ID, Success: true}, f.now)
	require.NoError(t, err)
	require.True(t, late)
	require.Equal(t, c, f.command("a"), "terminal is terminal, and the first ack is kept")

	// A late ack is kept on the record.
	f.mustDeliver("vm", v.Epoch)
	f.later(time.Minute)
	f.sweep(10)
	c, late, err = f.answer("vm", v.Epoch, fleet.Ack{CommandID: "b", Success: true}, f.now)
	require.NoError(t, err)
	require.True(t, late)
	require.Equal(t, fleet.TimedOut, c.State)
	require.NotNil(t, f.command("b").Ack)
}

func testPoll(f *fixture) {
	t := f.T
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, f.now)
	c, err := f.poll()
	require.NoError(t, err)
	require.Equal(t, fleet.RegisterRunner, c.Type)
	_, err = f.poll()
	require.ErrorIs(t, err, fleet.ErrNothingDue, "delivered once per boot")

	// It then opens its stream: still a single register_runner.
	v := f.connect("vm")
	f.nothingDue("vm", v.Epoch)
	require.Equal(t, 1, f.registrations("vm"))
	f.send("a", "vm")
	_, err = f.poll()
	require.ErrorIs(t, err, fleet.ErrNothingDue, "a live session gets the commands")
	f.event("vm", fleet.EventRunnerRegistered, fleet.HTTP, 0, time.Time{})
	require.Equal(t, fleet.Succeeded, f.command(c.ID).State)
	require.Equal(t, "a", string(f.mustDeliver("vm", v.Epoch).ID))

	// The stream drops with a unacked; the agent falls back to polling.
	f.drop("vm", v.Epoch)
	c, err = f.poll()
	require.NoError(t, err)
	require.Equal(t, "a", string(c.ID))
	require.Equal(t, 2, c.Attempts)
	v = f.connect("vm")
	f.nothingDue("vm", v.Epoch)
	f.later(31 * time.Second)
	f.sweep(10)
	require.Equal(t, fleet.TimedOut, f.command("a").State)
	_, err = f.ResetSessions(f.Context(), time.Unix(0, math.MaxInt64).UTC())
	require.NoError(t, err)
}
