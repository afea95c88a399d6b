package config

// RunnerWarnings are for the operator, at the start: about options with which no runner
// registers, or with which others than agents get a token.
func (o Options) RunnerWarnings() (warnings []string) {
	switch {
	case o.RegistrationToken == "" && o.RegistrationTokenFile == "":
		warnings = append(warnings,
			"agents are sent a sample registration token, which registers no runner: set --registration-token-file")
	case o.RunnerURL == "":
		warnings = append(warnings,
			"agents are sent a registration token with a sample URL, where no runner can register: set --runner-url")
	}
	if o.TokenInVMStarted {
		warnings = append(warnings,
			"--token-in-vm-started: everyone who can reach these addresses can get a registration token by reporting vm_started")
	}
	return warnings
}
