package config

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The help shows every option with its default and its variable, in groups, within 80 columns.
func TestHelp(t *testing.T) {
	t.Parallel()
	help := HelpText()
	for line := range strings.Lines(help) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80, line)
		require.Equal(t, strings.TrimRight(line, " \n"), strings.TrimRight(line, "\n"), "no blanks at the end")
	}
	for _, f := range optionFlags() {
		require.NotEmpty(t, f.Help, f.Name)
		require.NotEmpty(t, f.Group.Key, f.Name)
		require.Contains(t, help, "\n"+f.Group.Key+"\n")
		require.Contains(t, help, flagForm(f))
		if isSettable(f) {
			require.Contains(t, help, envName(f.Name)+"\n")
		}
		if f.Default != "" && f.Default != "0" {
			require.Contains(t, help, "["+f.Default+"]")
		}
	}
	require.Contains(t, help, `  --ack-timeout=TIME          Default time that an agent has to acknowledge a
                              command; at most 24h.
                              [30s] CONTROLLER_ACK_TIMEOUT
`)
	require.Contains(t, help, `  -h, --help                  Print this text and exit.
`)
	require.Regexp(t, `(?s)--registration-token=TOKEN.*flags\s+are\s+visible\s+in\s+the\s+list\s+of\s+processes`, help)
}

// The options of a group are together, under one title.
func TestHelpGroups(t *testing.T) {
	t.Parallel()
	var order []string
	for _, f := range optionFlags() {
		if len(order) == 0 || order[len(order)-1] != f.Group.Key {
			order = append(order, f.Group.Key)
		}
	}
	require.Equal(t, []string{
		"Addresses", "Access", "Data", "Runners", "Commands", "Log", "Simulation", "Configuration file", "Help",
	}, order)
}

// The table has a row for each option that can be set.
func TestOptionTable(t *testing.T) {
	t.Parallel()
	table := OptionTable()
	rows := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	require.Len(t, rows, 2+len(trials())+1, "head, rule, the options and --config")
	for _, row := range rows {
		require.Equal(t, 5, strings.Count(row, "|"), row)
	}
	require.Contains(t, table, "| `--[no-]journal` | `CONTROLLER_JOURNAL` | `true` | Also write")
	require.Contains(t, table, "| `--runner-url=URL` | `CONTROLLER_RUNNER_URL` |  | URL of the organisation")
}
