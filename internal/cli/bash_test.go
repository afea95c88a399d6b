package cli

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Completion rejoins words that bash split at colons, and returns the prefix that bash does
// not replace.
func TestJoinColons(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		words, joined []string
		prefix        string
	}{
		{[]string{"--address", "http", ":", "//h", ":", "80", "vm", ""}, []string{"--address", "http://h:80", "vm", ""}, ""},
		{[]string{"--address", "=", "http", ":", "//[", "::", "1]", ":", "80", "vm", "a"}, []string{"--address", "=", "http://[::1]:80", "vm", "a"}, ""},
		{[]string{"vm", "a", ":", "b"}, []string{"vm", "a:b"}, "a:"},
		{[]string{"vm", "a", ":"}, []string{"vm", "a:"}, "a:"},
		{[]string{"vm", "a:b"}, []string{"vm", "a:b"}, ""},
		{[]string{""}, []string{""}, ""},
	} {
		joined, prefix := joinColons(test.words)
		require.Equal(t, test.joined, joined)
		require.Equal(t, test.prefix, prefix)
	}
}

// bash unquotes a completion to the original text, whatever characters it contains and
// whichever quote was typed.
func TestBashQuoting(t *testing.T) {
	t.Parallel()
	runes := []rune("~é")
	for r := ' '; r <= '~'; r++ {
		runes = append(runes, r)
	}
	text := string(runes)
	for _, quote := range []string{"", "'", `"`} {
		words, quoteWord := fromBash([]string{"vms", quote + "x"})
		require.Equal(t, []string{"vms", "x"}, words)
		typed := quote + quoteWord(text) + quote // bash closes the quote
		read, err := exec.CommandContext(t.Context(), "bash", "--norc", "-c", "printf %s "+typed).Output()
		require.NoError(t, err, typed)
		require.Equal(t, text, string(read))
		require.Equal(t, text, unquoted(typed))
	}
}
