package engine_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// short accepts a command with a near deadline.
func (f *fixture) short(id, vm string, ttl time.Duration) fleet.Command {
	f.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: vm, Type: "drain", TTL: ttl}.Accept(defaults, f.now)
	require.NoError(f, err)
	c, err = f.enqueue(c)
	require.NoError(f, err)
	return c
}

// Two agents with the same id get a command again and again, and its acks are lost. It ends
// at its deadline anyway, and then blocks nothing.
func testDeadline(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.short("a", "vm", 10*time.Second)
	f.send("b", "vm")
	for range 2 {
		require.Equal(t, "a", string(f.mustDeliver("vm", v.Epoch).ID))
		f.later(5*time.Second - 1)
		v = f.connect("vm")
	}
	f.later(2)
	f.silent["vm"] = true
	require.Equal(t, "b", string(f.mustDeliver("vm", v.Epoch).ID), "nothing is delivered after its deadline")
	f.sweep(10)
	require.Equal(t, fleet.TimedOut, f.command("a").State)
	require.Equal(t, 2, f.command("a").Attempts)

	// Delivered just before its deadline, a command has its ack timeout, but only on that
	// session.
	f.ack(f.command("b"), v.Epoch, true)
	f.short("c", "vm", 10*time.Second)
	f.later(9 * time.Second)
	f.mustDeliver("vm", v.Epoch)
	f.later(10 * time.Second)
	require.Zero(t, f.sweep(10))
	f.drop("vm", v.Epoch)
	f.sweep(10)
	require.Equal(t, fleet.TimedOut, f.command("c").State)
}

func testMaxDeliveries(f *fixture) {
	t := f.T
	v := f.registered("vm")
	limited := f.request("a", "vm", "drain")
	limited.MaxDeliveries = 2
	_, err := f.enqueue(limited)
	require.NoError(t, err)
	f.send("b", "vm")
	for i := range 2 {
		require.Equal(t, fleet.Delivered, f.mustDeliver("vm", v.Epoch).State)
		require.Equal(t, i+1, f.command("a").Attempts)
		if i == 0 {
			f.drop("vm", v.Epoch)
		}
		v = f.connect("vm")
	}
	a := f.command("a")
	require.Equal(t, fleet.TimedOut, a.State)
	require.Contains(t, a.Reason, "max_deliveries")
	require.Equal(t, "b", string(f.mustDeliver("vm", v.Epoch).ID), "it no longer blocks the next one")

	// If a controller crashes while the last permitted delivery is in flight, the command
	// ends too.
	require.Equal(t, 5, f.command("b").MaxDeliveries, "the default")
	for range 4 {
		v = f.connect("vm")
		f.mustDeliver("vm", v.Epoch)
	}
	_, err = f.ResetSessions(f.Context(), f.now)
	require.NoError(t, err)
	require.Equal(t, fleet.TimedOut, f.command("b").State)
	require.Equal(t, 5, f.command("b").Attempts)
}

// Only completed writes count.
func testNotWritten(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("a", "vm")
	for range 10 { // leased each time, and never written
		c, err := f.leaseOnly("vm", v.Epoch)
		require.NoError(t, err)
		require.Equal(t, 1, c.Attempts)
		v = f.connect("vm")
		require.Equal(t, fleet.Pending, f.command("a").State)
	}
	require.Zero(t, f.command("a").Attempts)

	f.mustDeliver("vm", v.Epoch)
	f.drop("vm", v.Epoch)
	v = f.connect("vm")
	c, err := f.leaseOnly("vm", v.Epoch)
	require.NoError(t, err)
	require.Equal(t, 2, c.Attempts)
	require.NoError(t, f.notWritten("a", v.Epoch-1, f.now), "of another session")
	require.Equal(t, 2, f.command("a").Attempts)
	require.NoError(t, f.notWritten("a", v.Epoch, f.now))
	require.Equal(t, 1, f.command("a").Attempts)
	require.Equal(t, fleet.Delivered, f.command("a").State, "it was delivered before")
}

// As long as nothing has arrived on its session since a command was delivered, the link may
// be dead; then the end of the session causes another delivery.
func testSilence(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.send("a", "vm")
	f.send("b", "vm")
	f.mustDeliver("vm", v.Epoch)
	changes := f.LastChange()
	f.silent["vm"] = true
	for range 20 {
		f.later(3 * time.Second)
		f.sweep(10)
		require.Equal(t, fleet.Delivered, f.command("a").State)
	}
	require.Equal(t, changes, f.LastChange(), "postponing it is not a change")
	f.drop("vm", v.Epoch)
	v = f.connect("vm")
	c := f.mustDeliver("vm", v.Epoch)
	require.Equal(t, "a", string(c.ID))
	require.Equal(t, 2, c.Attempts)

	f.later(31 * time.Second)
	f.sweep(10)
	require.Equal(t, fleet.Delivered, f.command("a").State)
	f.silent["vm"] = false // but not an ack
	f.later(2 * time.Second)
	f.sweep(10)
	require.Equal(t, fleet.TimedOut, f.command("a").State)

	f.mustDeliver("vm", v.Epoch)
	f.silent["vm"] = true
	f.later(time.Hour)
	f.sweep(10)
	require.Equal(t, fleet.TimedOut, f.command("b").State, "its deadline ends it anyway")
}

// tokenMissing records why the VM "vm" has no token, and requires that this is visible to
// watchers or not.
func (f *fixture) tokenMissing(why string, visible bool) {
	f.Helper()
	before := f.vm("vm")
	after := f.apply(fleet.TokenUnavailable{VM: "vm", Why: why}).State.VM
	require.Equal(f, visible, before.Differs(after))
}

func testTokenWait(f *fixture) {
	t := f.T
	v := f.connect("vm")
	register := v.Registration.Command
	f.send("a", "vm")
	f.send("b", "vm")
	why := "token file: no such file"
	f.tokenMissing(why, true)
	require.Equal(t, fleet.TokenWait{Why: why, Since: start, RetryAt: start.Add(time.Second)}, f.vm("vm").TokenWait)
	changes := f.LastChange()
	f.later(time.Second)
	f.tokenMissing(why, false)
	require.Equal(t, changes, f.LastChange(), "written only when it changes")
	f.tokenMissing("it is empty", true)
	require.Equal(t, fleet.TokenWait{Why: "it is empty", Since: start, RetryAt: start.Add(3 * time.Second)}, f.vm("vm").TokenWait)

	for _, id := range []string{"a", "b"} {
		c, err := f.deliverWithoutToken("vm", v.Epoch)
		require.NoError(t, err)
		require.Equal(t, id, string(c.ID), "others overtake it, in their order")
		_, err = f.deliverWithoutToken("vm", v.Epoch)
		require.ErrorIs(t, err, fleet.ErrNothingDue, "one at a time")
		f.nothingDue("vm", v.Epoch)
		f.ack(c, v.Epoch, true)
	}
	_, err := f.deliverWithoutToken("vm", v.Epoch)
	require.ErrorIs(t, err, fleet.ErrNothingDue)
	require.Equal(t, register, f.mustDeliver("vm", v.Epoch).ID)
	require.Zero(t, f.vm("vm").TokenWait, "it no longer waits")

	// Delivered on a session that has ended, it blocks nothing either.
	v = f.connect("vm")
	f.send("c", "vm")
	c, err := f.deliverWithoutToken("vm", v.Epoch)
	require.NoError(t, err)
	require.Equal(t, "c", string(c.ID))
	f.nothingDue("vm", v.Epoch)
	v = f.reconnect("vm")
	require.Equal(t, register, f.mustDeliver("vm", v.Epoch).ID, "the order is restored")
	f.tokenMissing(why, true)
	f.ack(f.command(register), v.Epoch, true)
	require.Zero(t, f.vm("vm").TokenWait, "it has ended")
	require.Equal(t, "c", string(f.mustDeliver("vm", v.Epoch).ID))
	s, err := f.State(f.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, []fleet.Command{f.command("c")}, s.Commands)

	// However many there are.
	for range 20 {
		_, err := f.enqueue(f.request(string(fleet.NewCommandID()), "vm2", fleet.RegisterRunner))
		require.NoError(t, err)
	}
	f.send("last", "vm2")
	v = f.connect("vm2")
	c, err = f.deliverWithoutToken("vm2", v.Epoch)
	require.NoError(t, err)
	require.Equal(t, "last", string(c.ID))
	_, err = f.deliverWithoutToken("vm2", v.Epoch)
	require.ErrorIs(t, err, fleet.ErrNothingDue)
	f.drop("vm2", v.Epoch)
	require.Equal(t, c.ExpiresAt, f.command("last").DueAt, "its ack clock stops")
}
