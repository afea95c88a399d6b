package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// longIDs returns a table of commands with ids of realistic lengths.
func longIDs() table {
	t := (&invocation{}).commandTable(nil)
	add := func(id, vm, kind, state, accepted, why string) {
		t.add(plain(id), plain(vm), plain(kind), plain(state), plain("1"), plain(accepted), cell{}, cell{}, cell{}, cell{}, plain(why))
	}
	add("ctl-0123456789abcdef", "runner-pool-a-7f3c9d2k-x1b2", "drain", "SUCCEEDED", "2h ago", "the agent acked it")
	add("reg-pkrkotayajqdtuajrnue5r5qj7", "runner-pool-a-7f3c9d2k-x1b3", "register_runner", "FAILED", "30s ago",
		"the runner could not be configured: registration token expired at 2026-03-01T02:59:00Z; fetch a new one")
	add("ctl-0123456789abcdee", "runner-pool-a-7f3c9d2k-x1b4", "drain", "PENDING", "now", "")
	return t
}

// At any width, ids are never truncated, no word of a reason is lost or broken, and no line
// is wider than the terminal.
func TestTableWidths(t *testing.T) {
	t.Parallel()
	for width := 32; width <= 220; width++ {
		var out strings.Builder
		table := longIDs()
		table.write(&out, tableOptions{headers: true, width: width})
		text := out.String()
		for _, row := range table.rows {
			for _, column := range []int{0, 1, 3} {
				require.Contains(t, text, row[column].text, "%d columns:\n%s", width, text)
			}
			for word := range strings.FieldsSeq(row[len(row)-1].text) {
				require.Contains(t, strings.Fields(text), word, "%d columns:\n%s", width, text)
			}
		}
		for line := range strings.Lines(text) {
			require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), width, "%d columns:\n%s", width, text)
		}
	}
}

// On a narrow terminal, columns are hidden in their drop order, and no more of them than
// necessary.
func TestTableHidesColumns(t *testing.T) {
	t.Parallel()
	for width, want := range map[int][]string{
		0: nil, 200: nil, 97: nil, // the reason is printed below
		96: {"ACCEPTED"}, 86: {"TYPE"}, 72: {"TYPE", "ACCEPTED"},
		60: nil, // in two lines
		36: {"ACCEPTED"},
	} {
		table := longIDs()
		require.Equal(t, want, table.write(io.Discard, tableOptions{headers: true, width: width}), "%d columns", width)
	}
	table := longIDs()
	var out strings.Builder
	table.write(&out, tableOptions{headers: true, width: 80})
	require.Equal(t, `COMMAND                         VM                           STATE      ACCEPTED
ctl-0123456789abcdef            runner-pool-a-7f3c9d2k-x1b2  SUCCEEDED  2h ago
  the agent acked it
reg-pkrkotayajqdtuajrnue5r5qj7  runner-pool-a-7f3c9d2k-x1b3  FAILED     30s ago
  the runner could not be configured: registration token expired at
  2026-03-01T02:59:00Z; fetch a new one
ctl-0123456789abcdee            runner-pool-a-7f3c9d2k-x1b4  PENDING    now
`, out.String())
}

// In a change, ids are never truncated, and a reason is truncated only after minText
// characters.
func TestChangeText(t *testing.T) {
	t.Parallel()
	const summary = "register_runner reg-pkrkotayajqdtuajrnue5r5qj7: "
	long := strings.Repeat("a long reason ", 20)
	for _, c := range []struct {
		detail      string
		width, used int
		rest        string
		below       []string
	}{
		{long, 0, 50, summary + long, nil},
		{"the agent acked it", 120, 50, summary + "the agent acked it", nil},
		{"the agent acked it", 80, 50, "", []string{summary + "the agent acked it"}},
		{long, 150, 50, summary + "a long reason a long reason a long reason a long re…", nil},
		{long, 80, 50, "", []string{summary + "a long reason a long reason a", "long reason a long reason a long reason a long reason a long reason a long …"}},
	} {
		rest, below := changeText(summary, c.detail, c.width, c.used)
		require.Equal(t, c.rest, rest, "%d columns", c.width)
		require.Equal(t, c.below, below, "%d columns", c.width)
	}
}

// Text on stderr is wrapped at words on a terminal, without adding a final newline. Lines
// with cursor control sequences are not wrapped.
func TestWrapping(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Nothing was sent.\n": "Nothing was sent.\n",
		"migctl: cannot reach the controller at http://runner-controller.example:8080\n  Is it running?\n": "" +
			"migctl: cannot reach the controller at\n  http://runner-controller.example:8080\n  Is it running?\n",
		"Send drain to 3 VMs at http://runner-controller.example:8080? [y/N] ": "" +
			"Send drain to 3 VMs at\n  http://runner-controller.example:8080? [y/N] ",
		"\r\x1b[K" + strings.Repeat("progress ", 9): "\r\x1b[K" + strings.Repeat("progress ", 9),
		"\n": "\n",
	} {
		var out strings.Builder
		n, err := wrapWriter{&out, func() int { return 50 }}.Write([]byte(text))
		require.NoError(t, err)
		require.Equal(t, len(text), n)
		require.Equal(t, want, out.String())
	}
}
