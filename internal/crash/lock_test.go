package crash

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A data directory has one controller. A second one is refused with status 1 and
// told of the directory, and the first does not notice. The lock of one that was
// killed holds nobody up.
func TestDataDirectoryHasOneController(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir)
	first.mustSend(t, "vm-1", "cmd-1")
	a := connectAgent(t, first, "vm-1")
	require.Equal(t, "cmd-1", a.next(t).GetId())
	for range 3 {
		status, _, stderr := run(t, command(t, dir))
		require.Equal(t, 1, status, stderr)
		require.Contains(t, stderr, dir)
		require.Contains(t, stderr, "another controller uses the data directory")
	}
	require.True(t, first.vm(t, "vm-1").GetConnected(), "the second ended no session")
	a.ack(t, "cmd-1")
	first.waitState(t, "cmd-1", succeeded)
	first.mustSend(t, "vm-2", "cmd-2")

	first.kill()
	next := start(t, dir)
	require.Equal(t, pending, next.command(t, "cmd-2").GetState())
}
