package app

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

// "controller token …" is migctl's command on the socket of the data directory, wherever that is
// named. It says so when no controller runs there, except for help.
func TestTokenCommand(t *testing.T) {
	t.Parallel()
	here, file := t.TempDir(), filepath.Join(t.TempDir(), "controller.yaml")
	socket := config.ControlSocket(here)
	require.NoError(t, os.MkdirAll(filepath.Dir(socket), 0o750))
	require.NoError(t, os.WriteFile(socket, nil, 0o600))
	require.NoError(t, os.WriteFile(file, []byte("data-dir: "+here), 0o600))
	at := "--address=unix://" + socket
	for name, test := range map[string]struct {
		args, environ []string
		want          []string // of migctl; nil if it is not run
		status        int
		errs          string
	}{
		"flag":        {[]string{"list", "--data-dir", here, "--all"}, nil, []string{at, "token", "list", "--all"}, 7, ""},
		"with =":      {[]string{"--data-dir=" + here, "list"}, nil, []string{at, "token", "list"}, 7, ""},
		"environment": {[]string{"list"}, []string{"CONTROLLER_DATA_DIR=" + here}, []string{at, "token", "list"}, 7, ""},
		"file":        {[]string{"list", "--config", file}, nil, []string{at, "token", "list"}, 7, ""},
		"no controller": {
			[]string{"list", "--data-dir", t.TempDir()},
			nil, nil, exitFailure,
			"no controller is running with the data directory",
		},
		"no value": {[]string{"list", "--data-dir"}, nil, nil, exitUsage, "--data-dir needs a value"},
		"help": {
			[]string{"--help", "--data-dir=/nowhere"},
			nil,
			[]string{"--address=unix://" + config.ControlSocket("/nowhere"), "token", "--help"},
			7, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			var errs bytes.Buffer
			status := runToken(test.args, test.environ, nil, io.Discard, &errs, func(args []string, _ io.Reader, _, _ io.Writer) int {
				got = args
				return 7
			})
			require.Equal(t, test.want, got)
			require.Equal(t, test.status, status)
			require.Contains(t, errs.String(), test.errs)
		})
	}
}

// A socket whose path is too long is an error that says so, and leaves nothing behind.
func TestControlSocketWithALongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	state := filepath.Dir(config.ControlSocket(dir))
	require.NoError(t, os.MkdirAll(state, 0o750))
	_, err := listenControl(t.Context(), dir, nil, quiet())
	require.ErrorContains(t, err, "path may be too long")
	left, err := os.ReadDir(state)
	require.NoError(t, err)
	require.Empty(t, left)
}
