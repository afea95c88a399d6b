//go:build unix

package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// Every command line of migctl in the runbook and in the page about monitoring is one that
// migctl accepts.
func TestRunbookCommands(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile("(?m)(?:^(?:\\$ )?(?:\\./bin/)?|`)(migctl(?: [^`\n]+)?)`?$|`(migctl [^`\n]+)`")
	for _, page := range []string{"runbook.md", "monitoring.md"} {
		lines := line.FindAllStringSubmatch(readPage(t, "docs", page), -1)
		require.NotEmpty(t, lines, page)
		for _, match := range lines {
			command, _, _ := strings.Cut(match[1]+match[2], " | ")
			words := strings.Fields(command)[1:]
			p := program{stdout: io.Discard, stderr: io.Discard, width: func() int { return 0 }}
			parser, err := kong.New(new(commandLine), p.grammar(func(int) {})...)
			require.NoError(t, err)
			if len(words) > 0 {
				_, err = parser.Parse(words)
			}
			require.NoError(t, err, "docs/%s: migctl %s", page, strings.Join(words, " "))
		}
	}
}
