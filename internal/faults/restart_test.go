package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// An agent whose runner is registered crashes and is back within seconds. It is registered
// again as soon as it connects, although its next heartbeat is a minute away.
func testCrashRestart(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--vms=1", "--vm-prefix=vm-", "--register-time=500ms", "--job-every=0",
		"--heartbeat-interval=1m", "--restart-registered=1s")
	await(t, func() bool {
		vms := c.vms(t)
		return len(vms) == 1 && vms[0].GetBoot() == 2 && vms[0].GetRegistration().GetState() == registered
	}, "it is not registered again")
	vm := c.vm(t, simVM)
	require.EqualValues(t, 2, vm.GetSessionEpoch())
	require.Less(t, c.registration(t, simVM).GetDeliveredAt().AsTime().Sub(vm.GetConnectedAt().AsTime()), 10*time.Second)
	require.Len(t, c.commands(t, simVM), 2)
	require.Empty(t, c.out.lines(ofMessage("registration failed")))
}

// A link is cut, and the agent reconnects in the same boot, once with an immediate
// heartbeat and once without. It is not registered twice.
func testNetworkDrop(t *testing.T) {
	c := startController(t)
	link := testkit.NewBlackhole(t, c.addr)
	connectTo(t, link.Addr, "vm-1").register(t)
	for epoch, beats := range []bool{true, false} {
		await(t, func() bool { return c.vm(t, "vm-1").GetRunner().GetConfigured() }, "it is not registered")
		link.Cut()
		await(t, func() bool { return !c.vm(t, "vm-1").GetConnected() }, "it is still connected")
		link = testkit.NewBlackhole(t, c.addr)
		a := connectTo(t, link.Addr, "vm-1")
		if beats {
			a.beat(t)
		}
		stays(t, 2*time.Second, func() bool { return len(a.inbox) == 0 }, "it gets a command")
		vm := c.vm(t, "vm-1")
		require.EqualValues(t, 2+epoch, vm.GetSessionEpoch())
		require.EqualValues(t, 1, vm.GetBoot())
		require.Equal(t, registered, vm.GetRegistration().GetState())
	}
	require.Len(t, c.commands(t, "vm-1"), 1)
}

// beats sends a modified heartbeat, and returns the VM when it has been applied.
func (c *controller) beats(t *testing.T, a *agent, change func(*commands.Heartbeat)) *migcontrollerv1.VM {
	t.Helper()
	return c.awaitBeat(t, a.vm, func() {
		m := beatOf(a.vm)
		change(m.GetHeartbeat())
		a.send(t, m)
	})
}

// awaitBeat returns the VM when the heartbeat that send sends has been applied.
func (c *controller) awaitBeat(t *testing.T, vm string, send func()) (v *migcontrollerv1.VM) {
	t.Helper()
	before := c.vm(t, vm).GetLastHeartbeatAt().AsTime()
	send()
	await(t, func() bool {
		v = c.vm(t, vm)
		return v.GetLastHeartbeatAt().AsTime().After(before)
	}, "the heartbeat is not applied")
	return v
}

// withJob adds a job to a heartbeat.
func withJob(h *commands.Heartbeat) { h.CurrentJob = &commands.JobInfo{JobId: "job:"} }

// ofStart makes a heartbeat that of an agent that has just started.
func ofStart(h *commands.Heartbeat) {
	h.MigletState, h.RunnerState = "ready", &commands.RunnerState{State: "offline"}
}

// sent sets the time of a heartbeat to this many seconds from now.
func sent(seconds int64, change func(*commands.Heartbeat)) func(*commands.Heartbeat) {
	return func(h *commands.Heartbeat) {
		change(h)
		h.Timestamp += seconds
	}
}

// A runner ends with an error during its job. The job is over and the runner offline,
// whatever the next heartbeat reports. The next boot is registered immediately.
func testRunnerCrashedInJob(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	a.report(t, "job_started", "")
	await(t, func() bool { return c.vm(t, "vm-1").GetCurrentJob() != nil }, "no job")
	require.NotNil(t, c.beats(t, a, withJob).GetCurrentJob())
	a.report(t, "runner_crashed", "")
	c.awaitLine(t, ofMessage("runner crashed"), ofVM("vm-1"), `"level":"WARN"`)
	vm := c.beats(t, a, sent(5, withJob))
	require.Nil(t, vm.GetCurrentJob())
	require.Equal(t, "offline", vm.GetRunner().GetState())
	require.NotNil(t, vm.GetRunnerCrashedAt())
	require.Equal(t, registered, vm.GetRegistration().GetState())
	require.Len(t, c.commands(t, "vm-1"), 1)

	a.hangUp()
	a = c.connect(t, "vm-1")
	c.beats(t, a, sent(10, ofStart))
	a.register(t)
	await(t, func() bool { return c.vm(t, "vm-1").GetRegistration().GetState() == registered }, "it is not registered again")
	vm = c.vm(t, "vm-1")
	require.EqualValues(t, 2, vm.GetBoot())
	require.Nil(t, vm.GetRunnerCrashedAt())
	require.Contains(t, vm.GetRegistration().GetLastFailure().GetReason(), "its runner crashed as soon as it was registered")
}

// Heartbeats that were sent before already received reports change only the time of the
// last heartbeat: no boot, no job, no state.
func testLateHeartbeats(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	a.report(t, "job_started", "")
	await(t, func() bool { return c.vm(t, "vm-1").GetCurrentJob() != nil }, "no job")
	requireUnchanged := func(vm *migcontrollerv1.VM) {
		require.Equal(t, "idle", vm.GetStatus())
		require.True(t, vm.GetRunner().GetConfigured())
		require.EqualValues(t, 1, vm.GetBoot())
		require.Equal(t, registered, vm.GetRegistration().GetState())
		require.Len(t, c.commands(t, "vm-1"), 1)
	}
	overHTTP := func() *migcontrollerv1.VM {
		return c.awaitBeat(t, "vm-1", func() {
			at := time.Now().Add(-10 * time.Second).UTC().Format(time.RFC3339)
			got := c.request(t, "POST", "/api/v1/vms/vm-1/heartbeat", `{"miglet_state":"ready","timestamp":"`+at+`"}`,
				"Content-Type", jsonContent)
			require.Equal(t, 200, got.status)
		})
	}
	for range 2 { // on the session of the proof, and on the next one
		for _, vm := range []*migcontrollerv1.VM{c.beats(t, a, sent(-10, ofStart)), overHTTP()} {
			requireUnchanged(vm)
			require.NotNil(t, vm.GetCurrentJob())
		}
		a.hangUp()
		a = c.connect(t, "vm-1")
		require.NotNil(t, c.beats(t, a, withJob).GetCurrentJob())
	}
	completed := eventOf("vm-1", "job_completed", "")
	completed.GetEvent().Timestamp += 10
	a.send(t, completed)
	await(t, func() bool { return c.vm(t, "vm-1").GetCurrentJob() == nil }, "the job does not end")
	for _, seconds := range []int64{-10, 0} { // before the last heartbeat, and only before the event
		vm := c.beats(t, a, sent(seconds, withJob))
		requireUnchanged(vm)
		require.Nil(t, vm.GetCurrentJob())
		require.NotNil(t, vm.GetSpentAt())
	}
}
