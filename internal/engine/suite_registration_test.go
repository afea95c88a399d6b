package engine_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

func testRegistrationDrop(f *fixture) {
	t := f.T
	v := f.registered("vm")
	for range 5 {
		f.drop("vm", v.Epoch)
		v = f.connect("vm")
		f.nothingDue("vm", v.Epoch)
		v = f.beat("vm", v.Epoch, "idle", true)
		require.Equal(t, fleet.Registered, v.Registration.State)
	}
	require.Equal(t, 1, f.registrations("vm"))
	require.EqualValues(t, 1, v.Boot)

	// A drop while the agent registers: acked, with the proof outstanding.
	w := f.connect("vm2")
	f.ack(f.mustDeliver("vm2", w.Epoch), w.Epoch, true)
	w = f.connect("vm2")
	f.nothingDue("vm2", w.Epoch)
	w = f.beat("vm2", w.Epoch, fleet.StatusRegistering, false)
	require.Equal(t, fleet.Requested, w.Registration.State)
	require.Equal(t, 1, f.registrations("vm2"))

	// The same for an agent that was asked to drain meanwhile, and for a registered one
	// that removed its runner as it shut down.
	w = f.connect("vm4")
	f.ack(f.mustDeliver("vm4", w.Epoch), w.Epoch, true)
	w = f.connect("vm4")
	f.beat("vm4", w.Epoch, fleet.StatusDraining, false)
	f.beat("vm4", w.Epoch, "idle", false)
	v = f.connect("vm")
	v = f.beat("vm", v.Epoch, fleet.StatusShuttingDown, false)
	require.Equal(t, fleet.Registered, v.Registration.State)
	for _, vm := range []string{"vm", "vm4"} {
		require.Equal(t, 1, f.registrations(vm), vm)
	}

	// A drop before the ack: the same command is delivered again.
	x := f.connect("vm3")
	first := f.mustDeliver("vm3", x.Epoch)
	x = f.connect("vm3")
	f.beat("vm3", x.Epoch, "ready", false)
	require.Equal(t, first.ID, f.mustDeliver("vm3", x.Epoch).ID)
	require.Equal(t, 1, f.registrations("vm3"))
}

func testRegistrationRestart(f *fixture) {
	t := f.T
	v := f.registered("vm")
	v = f.beat("vm", v.Epoch, "idle", false)
	require.Equal(t, fleet.Registered, v.Registration.State, "an agent does not restart within its session")
	f.drop("vm", v.Epoch)
	v = f.connect("vm")
	v = f.beat("vm", v.Epoch, "ready", false)
	require.Equal(t, fleet.Requested, v.Registration.State)
	require.EqualValues(t, 2, v.Boot)
	require.Equal(t, 2, f.registrations("vm"))
	c := f.mustDeliver("vm", v.Epoch)
	require.Equal(t, v.Registration.Command, c.ID)
	f.beat("vm", v.Epoch, "ready", false)
	require.Equal(t, 2, f.registrations("vm"), "once per boot")

	// A refusal is a failure. The next attempt is made immediately, the one after that
	// later, on whichever session is live then.
	f.ack(c, v.Epoch, false)
	require.Equal(t, fleet.Requested, f.vm("vm").Registration.State)
	require.Equal(t, 3, f.registrations("vm"))
	f.ack(f.mustDeliver("vm", v.Epoch), v.Epoch, false)
	v = f.vm("vm")
	require.Equal(t, fleet.RegFailed, v.Registration.State)
	require.EqualValues(t, 2, v.Registration.Failures)
	require.InDelta(t, 30, v.Registration.NextAttemptAt.Sub(f.now).Seconds(), 7.5)
	v = f.connect("vm")
	v = f.beat("vm", v.Epoch, "ready", false)
	require.Equal(t, fleet.RegFailed, v.Registration.State, "a new boot does not end the delay")
	require.Equal(t, 3, f.registrations("vm"))
	f.later(40 * time.Second)
	f.sweep(10)
	require.Equal(t, 4, f.registrations("vm"))

	// A command that is never acked is a failure too.
	f.mustDeliver("vm", v.Epoch)
	f.later(time.Minute)
	f.sweep(10)
	v = f.vm("vm")
	require.Equal(t, fleet.RegFailed, v.Registration.State)
	require.EqualValues(t, 3, v.Registration.Failures)
	require.Equal(t, "no ack within 30s", v.Registration.LastFailure.Reason)

	// An operator's own command ends the delay.
	own, err := f.enqueue(f.request("own", "vm", fleet.RegisterRunner))
	require.NoError(t, err)
	v = f.vm("vm")
	require.Equal(t, own.ID, v.Registration.Command)
	require.Equal(t, fleet.Requested, v.Registration.State)
	require.EqualValues(t, 3, v.Registration.Failures, "until a proof")
}

func testRegistrationStarted(f *fixture) {
	t := f.T
	boot := f.now
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, boot)
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, boot)
	v := f.registered("vm")
	require.EqualValues(t, 1, v.Boot)
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, boot)
	require.Equal(t, 1, f.registrations("vm"), "a repeated event belongs to the same boot")

	// The VM restarts before its old link is known to be dead: the next session starts the
	// new boot.
	f.later(time.Minute)
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, f.now)
	f.nothingDue("vm", v.Epoch)
	require.Equal(t, 1, f.registrations("vm"))
	v = f.connect("vm")
	require.Equal(t, 2, f.registrations("vm"))
	first := f.mustDeliver("vm", v.Epoch)
	f.event("vm", fleet.EventVMStarted, fleet.HTTP, 0, f.later(time.Second))
	f.nothingDue("vm", v.Epoch)
	v = f.reconnect("vm")
	require.Equal(t, first.ID, f.mustDeliver("vm", v.Epoch).ID, "a single register_runner")
	require.Equal(t, 2, f.registrations("vm"))

	// A heartbeat from before the start that was stored after it is not evidence.
	x := f.registered("vm3")
	f.drop("vm3", x.Epoch)
	before := f.now
	f.event("vm3", fleet.EventVMStarted, fleet.HTTP, 0, f.later(time.Minute))
	require.Equal(t, fleet.Unregistered, f.vm("vm3").Registration.State)
	after := f.now
	f.now = before
	x = f.beat("vm3", x.Epoch, "idle", true)
	f.now = after
	require.Equal(t, fleet.Unregistered, x.Registration.State)
	require.EqualValues(t, 2, x.Boot)

	// On the stream: late in the session that requested it, it belongs to the same boot.
	w := f.connect("vm2")
	f.event("vm2", fleet.EventVMStarted, fleet.Stream, w.Epoch, f.now)
	require.Equal(t, 1, f.registrations("vm2"))
	f.ack(f.mustDeliver("vm2", w.Epoch), w.Epoch, true)
	f.event("vm2", fleet.EventRunnerRegistered, fleet.Stream, w.Epoch, time.Time{})
	w = f.connect("vm2")
	f.event("vm2", fleet.EventVMStarted, fleet.Stream, w.Epoch, f.later(time.Second))
	require.Equal(t, 2, f.registrations("vm2"))
}

func testRegistrationProof(f *fixture) {
	t := f.T
	// The ack is lost, the event arrives.
	v := f.connect("vm")
	c := f.mustDeliver("vm", v.Epoch)
	f.event("vm", fleet.EventRunnerRegistered, fleet.Stream, v.Epoch, time.Time{})
	require.Equal(t, fleet.Succeeded, f.command(c.ID).State)
	v = f.connect("vm")
	f.nothingDue("vm", v.Epoch)

	// Ack and event are lost, a heartbeat of a configured runner arrives.
	w := f.connect("vm2")
	c = f.mustDeliver("vm2", w.Epoch)
	w = f.beat("vm2", w.Epoch, "idle", true)
	require.Equal(t, fleet.Succeeded, f.command(c.ID).State)
	require.Equal(t, fleet.Registered, w.Registration.State)
	require.Equal(t, f.now, w.Registration.ProvenAt)

	// An operator's own register_runner on a registered VM waits for its ack.
	own, err := f.enqueue(f.request("own", "vm2", fleet.RegisterRunner))
	require.NoError(t, err)
	f.mustDeliver("vm2", w.Epoch)
	f.beat("vm2", w.Epoch, "idle", true)
	require.Equal(t, fleet.Delivered, f.command(own.ID).State)
}

func testRegistrationAdopts(f *fixture) {
	t := f.T
	own, err := f.enqueue(f.request("own", "vm", fleet.RegisterRunner))
	require.NoError(t, err)
	v := f.connect("vm")
	require.Equal(t, own.ID, v.Registration.Command)
	require.Equal(t, 1, f.registrations("vm"))

	// Cancelled, it is not requested again in this boot.
	_, err = f.cancel("own", f.now)
	require.NoError(t, err)
	require.Equal(t, fleet.RegFailed, f.vm("vm").Registration.State)
	f.connect("vm")
	require.Equal(t, 1, f.registrations("vm"))
}
