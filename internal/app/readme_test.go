package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's table of options is the one that the options make. With
// UPDATE_README=1 in the environment this test writes the table instead.
func TestReadmeOptions(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- options -->\n", "<!-- /options -->"
	path := filepath.Join("..", "..", "README.md")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, begun := strings.Cut(string(content), begin)
	table, tail, ended := strings.Cut(rest, end)
	require.True(t, begun && ended, "README.md has the table between %q and %q", begin, end)
	if os.Getenv("UPDATE_README") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(head+begin+OptionTable()+end+tail), 0o644))
		return
	}
	require.Equal(t, OptionTable(), table,
		"refresh it with: UPDATE_README=1 go test ./internal/app -run TestReadmeOptions")
}
