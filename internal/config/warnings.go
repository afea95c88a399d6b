package config

// Warnings returns warnings for the log at the start: about options with which no runner can
// register, or that let callers do what others should not. at are the addresses.
func (o Options) Warnings(at Endpoints) (warnings []string) {
	if o.InsecureOperators {
		warnings = append(warnings,
			"--insecure-operators: operators need no credentials, and everyone who can reach the addresses can command the fleet")
	}
	if at.Exposed() && o.AgentAuth == AgentAuthOff {
		warnings = append(warnings,
			"--agent-auth off: everyone who can reach the addresses can pose as a VM and get a registration token")
	}
	if at.Metrics != nil && at.Metrics.Exposed {
		warnings = append(warnings, "--metrics-addr: everyone who can reach the address can read the metrics, which have the names of pools")
	}
	switch {
	case o.RegistrationToken == "" && o.RegistrationTokenFile == "":
		warnings = append(warnings,
			"agents receive a sample registration token, with which no runner can register: set --registration-token-file")
	case o.RunnerURL == "":
		warnings = append(warnings,
			"agents receive a registration token with a sample URL, where no runner can register: set --runner-url")
	}
	if o.TokenInVMStarted {
		warnings = append(warnings,
			"--token-in-vm-started: everyone who can reach these addresses can get a registration token by reporting vm_started")
	}
	return warnings
}
