package config

// RunnerWarnings returns warnings for the log at the start: about options with which no runner
// can register, or with which others than agents can get a token.
func (o Options) RunnerWarnings() (warnings []string) {
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
