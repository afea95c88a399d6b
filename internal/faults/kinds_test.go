//go:build faults

package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// Agents of the kinds in the field, and ideal ones. All register. Commands for agents that
// then read none time out, with a reason that says so, and the log has no other warnings.
func testKindsOfAgents(t *testing.T) {
	c := startController(t)
	ofStart := c.unexpectedLines()
	kinds := []string{"today", "2025-12", "ideal"}
	for _, kind := range kinds {
		c.startSim(t, "--agent="+kind, "--vms=3", "--vm-prefix="+kind+"-", "--register-time=1s", "--heartbeat-interval=2s",
			"--job-every=5s", "--job-length=3s", "--replace-after=0")
	}
	await(t, func() bool {
		registered := 0
		for _, vm := range c.vms(t) {
			if vm.GetRegistration().GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED {
				registered++
			}
		}
		return registered == 3*len(kinds)
	}, "not all register")
	for _, vm := range c.vms(t) {
		c.send(t, vm.GetVmId(), "drain-"+vm.GetVmId(), withType("drain"), withAckTimeout(5*time.Second))
	}
	for _, vm := range c.vms(t) {
		id := vm.GetVmId()
		if strings.HasPrefix(id, "ideal-") {
			c.awaitEnd(t, "drain-"+id, succeeded)
			continue
		}
		r := c.awaitEnd(t, "drain-"+id, timedOut)
		require.Contains(t, r.GetReason(), "such an agent usually reads no commands", id)
		require.EqualValues(t, 1, r.GetAttempts())
	}
	<-time.After(10 * time.Second) // for warnings that their jobs may cause
	require.Len(t, c.vms(t), 3*len(kinds))
	require.Equal(t, ofStart, c.unexpectedLines())
}

// unexpectedLines returns the warnings and errors that are not about a command that has
// timed out.
func (c *controller) unexpectedLines() []string {
	var unexpected []string
	for _, level := range []string{"WARN", "ERROR"} {
		for _, line := range c.out.lines(`"level":"` + level + `"`) {
			if !strings.Contains(line, ofMessage("command timed out")) {
				unexpected = append(unexpected, line)
			}
		}
	}
	return unexpected
}
