//go:build unix

package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// migctl writes a config file that only its owner can read, and warns about files with a
// token that other users can read.
func TestTokenPermissions(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	d.program.stdin = strings.NewReader(secret + "\n")
	d.mustRun("config", "set-context", "lab", "--address", "https://controller.example", "--token-stdin")
	path := d.program.environ[configEnv]
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// The fake controller accepts any token, and plaintext to localhost is allowed.
	require.NoError(t, os.WriteFile(path, []byte("current_context: lab\ncontexts: {lab: {address: '"+d.server.URL+"', token: "+secret+"}}\n"), 0o600))
	require.NotContains(t, d.mustRun("vms"), "warning")
	require.NoError(t, os.Chmod(path, 0o640))
	require.Contains(t, d.mustRun("vms"), "contains a token and is readable by other users: run chmod 600 "+path)
	open := writeFile(t, "token", secret)
	require.NoError(t, os.Chmod(open, 0o604))
	require.Contains(t, d.mustRun("vms", "--address", d.server.URL, "--token-file", open), "is readable by other users: run chmod 600 "+open)
}
