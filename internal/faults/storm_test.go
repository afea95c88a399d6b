package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// The controller is killed, and all agents reconnect at once, while an operator sends
// commands. Each command is accepted at once, every agent gets its session and its command,
// and none is refused or registered again.
func testReconnectStorm(t *testing.T) {
	const agents, sent = 200, 40
	c := startController(t)
	c.startSim(t, "--agent=ideal", fmt.Sprintf("--vms=%d", agents), "--vm-prefix=vm-", "--register-time=100ms",
		"--job-every=0", "--heartbeat-interval=15s")
	await(t, func() bool { return c.registeredVMs(t) == agents }, "the agents do not register")
	c.kill()
	c.start(t)
	vms := c.listed(t)
	for i := range sent {
		began := time.Now()
		c.send(t, vms[i*agents/sent].GetVmId(), fmt.Sprintf("sent-%d", i))
		require.Less(t, time.Since(began), 2*time.Second, "usually some milliseconds")
		<-time.After(25 * time.Millisecond) // an operator's pause
	}
	await(t, func() bool { return c.registeredVMs(t) == agents }, "the agents do not reconnect")
	for i := range sent {
		c.awaitEnd(t, fmt.Sprintf("sent-%d", i), succeeded)
	}
	for _, vm := range c.listed(t) {
		require.EqualValues(t, 1, vm.GetBoot(), vm)
	}
	require.Empty(t, c.out.lines(ofMessage("agent rejected")))
}

// listed returns up to 1000 VMs.
func (c *controller) listed(t *testing.T) []*migcontrollerv1.VM {
	t.Helper()
	answer, err := c.admin.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{PageSize: 1000})
	require.NoError(t, err)
	return answer.GetVms()
}

// registeredVMs counts the VMs that are connected and whose runner is registered.
func (c *controller) registeredVMs(t *testing.T) (n int) {
	t.Helper()
	for _, vm := range c.listed(t) {
		if vm.GetConnected() && vm.GetRegistration().GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED {
			n++
		}
	}
	return n
}
