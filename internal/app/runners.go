package app

// runnerWarnings are for the operator, at the start: about options with which no runner
// registers.
func (o Options) runnerWarnings() []string {
	switch {
	case o.RegistrationToken == "" && o.RegistrationTokenFile == "":
		return []string{"agents are sent a sample registration token, which registers no runner: set --registration-token-file"}
	case o.RunnerURL == "":
		return []string{"agents are sent a registration token with a sample URL, where no runner can register: set --runner-url"}
	default:
		return nil
	}
}
