package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs in docs/clients.md are the examples that the clients' tests run. The Go program
// is compared where it is run.
func TestDocumentedClients(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "clients.md"))
	require.NoError(t, err)
	const printed = "\nsim-vm-0001 set_log_level PENDING\n" +
		"sim-vm-0001 set_log_level DELIVERED\nsim-vm-0001 set_log_level SUCCEEDED\n```\n"
	for _, client := range []struct{ language, example, run string }{
		{"js", "gen/ts/examples/watch.mjs", "node watch.mjs"},
		{"python", "gen/python/examples/watch.py", "python watch.py"},
	} {
		program, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(client.example)))
		require.NoError(t, err)
		shown := strings.Replace(string(program), "// @ts-check\n", "", 1)
		require.Contains(t, string(page), "```"+client.language+"\n"+shown+"```\n")
		require.Contains(t, string(page), "$ "+client.run+printed)
	}
}
