package cli

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Durations are parsed and formatted the same way.
func TestDurations(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "30s": 30 * time.Second, "10m": 10 * time.Minute, "1h": time.Hour,
		"1h30m": 90 * time.Minute, "1h0m5s": time.Hour + 5*time.Second, "23h59m59s": day - time.Second,
		"1d": day, "30d": 30 * day, "1d12h": 36 * time.Hour, "2d1m": 2*day + time.Minute,
	} {
		var s duration
		require.NoError(t, s.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, time.Duration(s), text)
		require.Equal(t, text, formatDuration(want))
	}
	for _, text := range []string{"", "0s", "-1s", "d", "-1d", "1.5d", "12h1d", "1d1d", "0d", "30", "soon", "99999d"} {
		require.ErrorContains(t, new(duration).UnmarshalText([]byte(text)), "is not a duration such as 30s, 15m, 24h or 30d", text)
	}
	require.Equal(t, "0s", formatDuration(0))
}

// --version needs no controller.
func TestVersionFlag(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	stdout, stderr, code := d.run("--version")
	require.Equal(t, "migctl dev ("+platform+")\n", stdout)
	require.Empty(t, stderr)
	require.Zero(t, code)
}

// Help texts fit in 80 columns, and in narrower terminals.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	for command := range strings.SplitSeq(
		",vms,vm,pools,commands,command,events,heartbeats,watch,send,broadcast,drain,cancel,log-level,whoami,token,token create,token list,token revoke,audit,options,help,completion,version,"+
			"config,config get-contexts,config use-context,config set-context,config delete-context,config view", ",",
	) {
		for _, width := range []int{0, 80, 70} {
			d := newDriver(t)
			d.terminal(width, "")
			stdout, stderr, code := d.run(append([]string{"help"}, strings.Fields(command)...)...)
			require.Zero(t, code, stderr)
			for line := range strings.Lines(stdout) {
				require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), cmp.Or(width, 80), line)
			}
		}
	}
	d := newDriver(t)
	d.terminal(60, "")
	stdout, _, _ := d.run("options")
	for line := range strings.Lines(stdout) {
		require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 60, line)
	}
}

// The flags that every command has may come before help as well.
func TestHelpAfterFlags(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "send", "config view"} {
		want, _, _ := newDriver(t).run(append([]string{"help"}, strings.Fields(command)...)...)
		require.Contains(t, want, "Usage: migctl "+command)
		stdout, stderr, code := newDriver(t).run(append([]string{"--address", "http://localhost:1", "help"}, strings.Fields(command)...)...)
		require.Zero(t, code, stderr)
		require.Equal(t, want, stdout)
	}
}

// Help for an unknown command is a usage error.
func TestHelpUnknownCommand(t *testing.T) {
	t.Parallel()
	_, stderr, code := newDriver(t).run("help", "vmz")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "unexpected argument vmz")
}
