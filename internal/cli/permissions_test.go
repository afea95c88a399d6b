//go:build unix

package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file with a token is for its owner only: migctl writes it so, and warns of
// one that others can read.
func TestTokenPermissions(t *testing.T) {
	t.Parallel()
	d := contextDesk(t)
	d.program.stdin = strings.NewReader(secret + "\n")
	d.must("config", "set-context", "lab", "--address", "https://controller.example", "--token-stdin")
	path := d.program.environ[configEnv]
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// The server of the desk takes any token; this machine may see it.
	require.NoError(t, os.WriteFile(path, []byte("current_context: lab\ncontexts: {lab: {address: '"+d.server.URL+"', token: "+secret+"}}\n"), 0o600))
	require.NotContains(t, d.must("vms"), "warning")
	require.NoError(t, os.Chmod(path, 0o640))
	require.Contains(t, d.must("vms"), "contains a token and is readable by other users: run chmod 600 "+path)
	open := put(t, "token", secret)
	require.NoError(t, os.Chmod(open, 0o604))
	require.Contains(t, d.must("vms", "--address", d.server.URL, "--token-file", open), "is readable by other users: run chmod 600 "+open)
}
