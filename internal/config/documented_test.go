package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The documented table of options is up to date. With UPDATE_OPTIONS=1 in the environment this
// test writes it instead.
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
		"update it with: UPDATE_OPTIONS=1 go test ./internal/config -run TestDocumentedOptions")
}
