package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The documented table of options is the one that the options make. With
// UPDATE_OPTIONS=1 in the environment this test writes the table instead.
func TestDocumentedOptions(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- options -->\n", "<!-- /options -->"
	path := filepath.Join("..", "..", "docs", "configuration.md")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, begun := strings.Cut(string(content), begin)
	table, tail, ended := strings.Cut(rest, end)
	require.True(t, begun && ended, "the page has the table between %q and %q", begin, end)
	if os.Getenv("UPDATE_OPTIONS") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(head+begin+OptionTable()+end+tail), 0o644))
		return
	}
	require.Equal(t, OptionTable(), table,
		"refresh it with: UPDATE_OPTIONS=1 go test ./internal/app -run TestDocumentedOptions")
}

// The programs of docs/clients.md are the examples that the clients' tests run. That
// of the Go client is held against its example where it is run.
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
