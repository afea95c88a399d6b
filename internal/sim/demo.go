package sim

import "time"

const demoPrefix = "sim-vm-"

// The indexes of the special VMs of a demonstration. A smaller fleet lacks the last of
// them.
const (
	demoObeys    = 0
	demoFails    = 3
	demoRestarts = 4
)

// Demo returns a fleet that shows the lifecycle of runners within about a minute. The first
// VM executes every command. The fourth fails its first registration, the fifth restarts
// once it is registered; then both behave like all others: they take one job, are spent,
// and are replaced by VMs that behave alike.
func Demo(agent Config, vms int) FleetConfig {
	return FleetConfig{Agent: agent, VMs: vms, VMPrefix: demoPrefix, StartRate: 10, Place: demoPlace}
}

func demoPlace(i int, c *Config) {
	if i == demoObeys {
		c.Kind = Ideal
		return
	}
	c.Timing.JobEvery, c.Timing.JobLength = 10*time.Second, 10*time.Second
	c.Timing.ReplaceAfter = 30 * time.Second
	switch i {
	case demoFails:
		c.Quirks.FirstRegistrationsFail = 1
	case demoRestarts:
		c.Quirks.RestartRegistered = 10 * time.Second
	}
}

// DemoLegend describes, in one line each, what happens in a Demo with this many VMs.
func DemoLegend(vms int) []string {
	legend := []string{vmID(demoPrefix, demoObeys) + " obeys every command and takes one job after the other"}
	if vms > demoFails {
		legend = append(legend, vmID(demoPrefix, demoFails)+" fails to register its runner at first; its agent restarts and registers it")
	}
	if vms > demoRestarts {
		legend = append(legend, vmID(demoPrefix, demoRestarts)+" restarts 10 s after its runner was registered, and registers it again")
	}
	if vms > 1 {
		legend = append(legend, "all but the first take one job each and are then spent; half a minute later new VMs replace them")
	}
	return legend
}
