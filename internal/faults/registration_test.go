package faults

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	registered = migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED
	regFailed  = migcontrollerv1.RegistrationState_REGISTRATION_STATE_FAILED
)

const simVM = "vm-0001" // the id of the only agent of migletsim here

// An agent acks register_runner, fails to register its runner, exits and is restarted, as
// long as the token is invalid. That is shown, and the attempts become rare. A new token is
// tried immediately.
func testFailingRegistrations(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("OLD"), 0o600))
	c := startController(t, "--registration-token-file="+file, "--runner-url=https://github.com/example/app")
	c.startSim(t, "--vms=1", "--vm-prefix=vm-", "--register-time=100ms", "--job-every=0",
		"--failed-registrations=100%")
	failures := func() int32 {
		for _, vm := range c.vms(t) {
			if g := vm.GetRegistration(); g.GetState() == regFailed {
				return g.GetConsecutiveFailures()
			}
		}
		return 0
	}
	await(t, func() bool { return failures() == 2 }, "it does not fail twice")
	g := c.vm(t, simVM).GetRegistration()
	require.Greater(t, time.Until(g.GetNextAttemptAt().AsTime()), 15*time.Second)
	require.NotEmpty(t, g.GetLastFailure().GetReason())
	require.Equal(t, succeeded, c.registration(t, simVM).GetState(), "its agent had the configuration")
	require.Contains(t, c.awaitLine(t, ofMessage("registration failed"), ofVM(simVM), `"failures":2`), "token expired")
	stays(t, 2*time.Second, func() bool { return failures() == 2 }, "it is retried in a loop")

	require.NoError(t, os.WriteFile(file, []byte("NEW"), 0o600))
	awaitFor(t, 30*time.Second, func() bool { return failures() == 3 }, "the new token is not tried")
	require.True(t, c.vm(t, simVM).GetRegistration().GetLastFailure().GetFailedAt().AsTime().Before(g.GetNextAttemptAt().AsTime()))
}

// An agent of 2025-12 is restarted and sends nothing until it is registered. A probe
// detects that; until it is acked the VM counts as registered.
func testSilentRestart(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--agent=2025-12", "--vms=1", "--vm-prefix=vm-", "--register-time=200ms",
		"--job-every=0", "--heartbeat-interval=1s", "--restart-registered=3s")
	await(t, func() bool { vms := c.vms(t); return len(vms) == 1 && vms[0].GetSessionEpoch() == 2 }, "no restart")
	connected := c.vm(t, simVM).GetConnectedAt().AsTime()
	stays(t, 25*time.Second, func() bool {
		vm := c.vm(t, simVM)
		return vm.GetRegistration().GetState() == registered && vm.GetBoot() == 1
	}, "silence counts as a restart")
	await(t, func() bool {
		vm := c.vm(t, simVM)
		return vm.GetRegistration().GetState() == registered && vm.GetBoot() == 2 && vm.GetRunner().GetConfigured()
	}, "it is not registered again")
	require.Len(t, c.commands(t, simVM), 2)
	delivered := c.registration(t, simVM).GetDeliveredAt().AsTime()
	require.GreaterOrEqual(t, delivered.Sub(connected), 30*time.Second)
	require.Less(t, delivered.Sub(connected), 40*time.Second)
}

// The clock of a VM starts in 1970 at each boot. It is registered after each start, as soon
// as it connects, although its next heartbeat is a minute away.
func testClock1970(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--vms=1", "--vm-prefix=vm-", "--register-time=3s", "--job-every=0",
		"--heartbeat-interval=1m", "--clock-1970", "--restart-registered=2s")
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
