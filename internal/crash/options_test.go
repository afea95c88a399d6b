package crash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// An invalid option ends the process with status 2, and with a message on stderr only that
// names the option, the rule and where it was set, before anything is written.
func TestWrongOptions(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "controller.yaml")
	require.NoError(t, os.WriteFile(file, []byte("ack-timeout: 0s\n"), 0o600))
	for name, test := range map[string]struct {
		args    []string
		environ string
		option  string
		rule    string
		origin  string
	}{
		"duration": {
			args:   []string{"--command-ttl=soon"},
			option: "--command-ttl", rule: "must be a duration", origin: "the command line",
		},
		"out of bounds": {
			args:   []string{"--command-ttl=31d"},
			option: "--command-ttl", rule: "at most 30d", origin: "the command line",
		},
		"address": {
			args:   []string{"--http-addr=localhost"},
			option: "--http-addr", rule: "must be HOST:PORT", origin: "the command line",
		},
		"exposed address": {
			args:   []string{"--grpc-addr=0.0.0.0:0"},
			option: "--grpc-addr", rule: "must be a loopback address", origin: "the command line",
		},
		"all interfaces": {
			args:   []string{"--http-addr=:0"},
			option: "--http-addr", rule: "--agent-auth off", origin: "the command line",
		},
		"environment": {
			environ: "CONTROLLER_LOG_LEVEL=loud",
			option:  "--log-level", rule: "must be debug, info, warn or error", origin: "CONTROLLER_LOG_LEVEL",
		},
		"file": {
			args:   []string{"--config=" + file},
			option: "--ack-timeout", rule: "must be more than 0", origin: file + ", line 1",
		},
		"database in memory": {
			args:   []string{"--database-url=file::memory:"},
			option: "--database-url", rule: "must name a file", origin: "the command line",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			// The last option on the command line counts.
			cmd := bare(t, append([]string{"--data-dir=" + dir, "--http-addr=localhost:0", "--grpc-addr=localhost:0"}, test.args...)...)
			if test.environ != "" {
				cmd.Env = append(cmd.Env, test.environ)
			}
			status, stdout, stderr := run(t, cmd)
			require.Equal(t, 2, status, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, test.option+" ")
			require.Contains(t, stderr, test.rule)
			require.Contains(t, stderr, test.origin)
			require.NoDirExists(t, dir)
		})
	}
}

// An unknown option is rejected like an invalid one.
func TestUnknownOption(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := run(t, bare(t, "--no-such-option=1"))
	require.Equal(t, 2, status, stderr)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "--no-such-option")
}

// Help and version are printed on stdout, with status 0, and nothing is started.
func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{
		"--help": "--data-dir=DIR", "-h": "--data-dir=DIR", "--version": "controller ",
	} {
		cmd := bare(t, option)
		cmd.Dir = t.TempDir()
		status, stdout, stderr := run(t, cmd)
		require.Zero(t, status, stderr)
		require.Contains(t, stdout, want)
		require.Empty(t, stderr)
		left, err := os.ReadDir(cmd.Dir)
		require.NoError(t, err)
		require.Empty(t, left, "%s makes no files", option)
	}
}

// If a port is in use the process exits with status 1, and the message names the option for
// another port.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	c := start(t, t.TempDir())
	cmd := bare(t, "--data-dir="+t.TempDir(), "--http-addr="+c.http, "--grpc-addr=localhost:0")
	status, _, stderr := run(t, cmd)
	require.Equal(t, 1, status, stderr)
	require.Contains(t, stderr, "--http-addr")
	require.Contains(t, stderr, c.http)
}
