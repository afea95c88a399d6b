package cli

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Completion understands words that bash split at colons, and gives back the part
// after the last of them.
func TestJoinColons(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		words, joined []string
		cut           string
	}{
		{[]string{"--address", "http", ":", "//h", ":", "80", "vm", ""}, []string{"--address", "http://h:80", "vm", ""}, ""},
		{[]string{"--address", "=", "http", ":", "//[", "::", "1]", ":", "80", "vm", "a"}, []string{"--address", "=", "http://[::1]:80", "vm", "a"}, ""},
		{[]string{"vm", "a", ":", "b"}, []string{"vm", "a:b"}, "a:"},
		{[]string{"vm", "a", ":"}, []string{"vm", "a:"}, "a:"},
		{[]string{"vm", "a:b"}, []string{"vm", "a:b"}, ""},
		{[]string{""}, []string{""}, ""},
	} {
		joined, cut := joinColons(test.words)
		require.Equal(t, test.joined, joined)
		require.Equal(t, test.cut, cut)
	}
}

// bash reads the words that completion writes as they are meant, whatever they hold and
// whichever quote was typed.
func TestBashReadsCompletions(t *testing.T) {
	t.Parallel()
	every := []rune("~é")
	for r := ' '; r <= '~'; r++ {
		every = append(every, r)
	}
	meant := string(every)
	for _, quote := range []string{"", "'", `"`} {
		words, written := fromBash([]string{"vms", quote + "x"})
		require.Equal(t, []string{"vms", "x"}, words)
		typed := quote + written(meant) + quote // bash closes the quote
		read, err := exec.CommandContext(t.Context(), "bash", "--norc", "-c", "printf %s "+typed).Output()
		require.NoError(t, err, typed)
		require.Equal(t, meant, string(read))
		require.Equal(t, meant, unquoted(typed))
	}
}
