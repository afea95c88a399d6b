package cli

import "testing"

// Piped output is never truncated, and coloured only on request.
func TestPiped(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"help":                   {"--help"},
		"help-send":              {"help", "send"},
		"help-options":           {"options"},
		"help-broadcast":         {"broadcast", "--help"},
		"vms":                    {"vms"},
		"vms-wide":               {"vms", "-o", "wide"},
		"vms-json":               {"vms", "--pool", "testers", "-o", "json"},
		"vms-yaml":               {"vms", "--pool", "testers", "-o", "yaml"},
		"vms-none":               {"vms", "--pool", "nobody"},
		"vms-none-json":          {"vms", "--pool", "nobody", "-o", "json"},
		"vms-offline":            {"vms", "--offline", "--no-headers"},
		"vms-connected":          {"vms", "--connected", "--status", "job_running", "--org", "tools"},
		"vms-colour":             {"vms", "--color", "always"},
		"vm":                     {"vm", "vm-1"},
		"vm-json":                {"vm", "vm-1", "-o", "json"},
		"vm-failed":              {"vm", "vm-2"},
		"vm-unknown":             {"vm", "vm-9"},
		"pools":                  {"pools"},
		"pools-json":             {"pools", "-o", "json"},
		"commands":               {"commands"},
		"commands-wide":          {"commands", "-o", "wide"},
		"command":                {"command", "ctl-aa02"},
		"command-yaml":           {"command", "ctl-aa02", "-o", "yaml"},
		"command-unknown":        {"command", "nope"},
		"cancel":                 {"cancel", "ctl-aa03"},
		"cancel-ended":           {"cancel", "ctl-aa02"},
		"cancel-many":            {"cancel", "nope", "ctl-aa03", "ctl-aa02"},
		"events":                 {"events"},
		"events-wide":            {"events", "-o", "wide"},
		"events-json":            {"events", "--limit", "1", "-o", "json"},
		"heartbeats":             {"heartbeats", "vm-1"},
		"heartbeats-wide":        {"heartbeats", "vm-1", "-o", "wide"},
		"heartbeats-unknown":     {"heartbeats", "vm-9"},
		"heartbeats-json":        {"heartbeats", "vm-1", "--limit", "1", "-o", "json"},
		"send":                   {"send", "vm-1", "drain"},
		"send-json":              {"send", "vm-1", "drain", "--id", "mine", "-o", "json"},
		"broadcast-dry-run":      {"broadcast", "drain", "--pool", "builders", "--dry-run"},
		"broadcast-no-yes":       {"broadcast", "drain"},
		"broadcast-none":         {"broadcast", "drain", "--pool", "nobody", "--yes"},
		"log-level":              {"log-level"},
		"log-level-set":          {"log-level", "debug", "--for", "10m"},
		"log-level-json":         {"log-level", "warn", "-o", "json"},
		"log-level-reason":       {"log-level", "debug", "--reason", "look for the leak"},
		"whoami":                 {"whoami"},
		"whoami-json":            {"whoami", "-o", "json"},
		"token-create":           {"token", "create", "ann", "--role", "operator", "--pools", "builders,testers", "--ttl", "30d"},
		"token-create-json":      {"token", "create", "ann", "--role", "operator", "-o", "json"},
		"token-create-no-role":   {"token", "create", "ann"},
		"token-create-role":      {"token", "create", "ann", "--role", "owner"},
		"token-list":             {"token", "list"},
		"token-list-all":         {"token", "list", "--all", "-o", "wide"},
		"token-list-json":        {"token", "list", "--limit", "1", "-o", "json"},
		"token-revoke":           {"token", "revoke", "tok-aa02", "--reason", "laptop lost"},
		"token-revoke-unknown":   {"token", "revoke", "ann"},
		"token-revoke-secret":    {"token", "revoke", fakeSecret},
		"audit":                  {"audit"},
		"audit-wide":             {"audit", "-o", "wide"},
		"audit-json":             {"audit", "--limit", "1", "-o", "json"},
		"audit-none":             {"audit", "--vm", "vm-9"},
		"usage-reason":           {"log-level", "--reason", "none"},
		"help-token-create":      {"help", "token", "create"},
		"help-audit":             {"help", "audit"},
		"complete-token":         {completeWord, "token", "revoke", ""},
		"complete-action":        {completeWord, "audit", "--action", "AccessService/"},
		"usage-level":            {"log-level", "loud"},
		"usage-for":              {"log-level", "--for", "10m"},
		"complete-level":         {completeWord, "log-level", "d"},
		"usage-flag":             {"vms", "--nope"},
		"usage-argument":         {"send", "vm-1"},
		"usage-both":             {"vms", "--connected", "--offline"},
		"usage-limit":            {"vms", "--limit=-1"},
		"usage-time":             {"vms", "--timeout", "soon"},
		"usage-since":            {"events", "--since", "yesterday"},
		"usage-follow":           {"events", "-f", "--until", "1h"},
		"usage-state":            {"commands", "--state", "done"},
		"usage-param":            {"send", "vm-1", "drain", "--param", "level"},
		"usage-param-twice":      {"send", "vm-1", "drain", "--param", "level=a", "--param", "level=b"},
		"usage-int":              {"send", "vm-1", "drain", "--int", "n=many"},
		"usage-bool":             {"send", "vm-1", "drain", "--bool", "now=maybe"},
		"usage-empty":            {"broadcast", "drain", "--pool=", "--yes"},
		"usage-parallel":         {"broadcast", "drain", "--parallel", "65"},
		"usage-address":          {"vms", "--address", "ftp://controller"},
		"usage-context":          {"vms", "--context", "nowhere"},
		"completion-fish":        {"completion", "fish"},
		"config-set-no-address":  {"config", "set-context", "here"},
		"config-get-none":        {"config", "get-contexts"},
		"config-use-not-there":   {"config", "use-context", "here"},
		"complete-vm":            {completeWord, "drain", "vm-1", ""},
		"complete-flag":          {completeWord, "vms", "--o"},
		"complete-value":         {completeWord, "vms", "-o", ""},
		"complete-command":       {completeWord, "c"},
		"complete-inner-command": {completeWord, "config", "use"},
		"complete-type":          {completeWord, "send", "vm-1", "d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newDriver(t).golden(name, args...)
		})
	}
}

// On a terminal, tables fit its width, states are coloured, and incomplete lists are noted.
func TestTerminal(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"terminal-vms":      {"vms"},
		"terminal-limit":    {"vms", "--limit", "1"},
		"terminal-command":  {"command", "ctl-aa02"},
		"terminal-commands": {"commands"},
		"terminal-never":    {"commands", "--color", "never"},
		"terminal-wide":     {"commands", "-o", "wide"},
		"terminal-tokens":   {"token", "list"},
		"terminal-audit":    {"audit"},
		"terminal-json":     {"vms", "--limit", "1", "-o", "json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t)
			d.terminal(60, "")
			d.golden(name, args...)
		})
	}
	t.Run("terminal-no-color", func(t *testing.T) {
		t.Parallel()
		d := newDriver(t)
		d.terminal(60, "")
		d.program.environ["NO_COLOR"] = "1"
		d.golden("terminal-no-color", "vms")
	})
}
