package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator learns before sending, not after a timeout, that an agent is likely
// to leave a command unread; programs that read structured output do not.
func TestWarnsOfAgentsThatReadNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fleet.vms[0].LastAckAt = d.fleet.vms[0].Registration.RequestedAt
	const warning = "such an agent reads no commands"
	for _, args := range [][]string{{"send", "vm-1", "update_config"}, {"drain", "vm-1", "--wait", "1s"}} {
		_, stderr, _ := d.run(args...)
		require.Contains(t, stderr, "Warning: the runner of vm-1 is registered")
		require.Contains(t, stderr, warning)
	}
	_, stderr, _ := d.run("broadcast", "drain", "--pool", "builders", "--yes")
	require.Contains(t, stderr, "Warning: the runners of 1 VM are registered")
	_, stderr, _ = d.run("send", "vm-1", "drain", "-o", "json")
	require.NotContains(t, stderr, "Warning")

	d.fleet.vms[0].Connected = false
	_, stderr, _ = d.run("send", "vm-1", "drain")
	require.NotContains(t, stderr, "Warning", "when it is back, it reads commands again")
	_, stderr, _ = d.run("broadcast", "drain", "--pool", "builders", "--yes")
	require.NotContains(t, stderr, "Warning")
	d.fleet.vms[0].Connected = true

	d.fleet.vms[0].LastAckAt = stamp(0)
	_, stderr, _ = d.run("send", "vm-1", "drain")
	require.NotContains(t, stderr, "Warning", "this one acked something since")
}
