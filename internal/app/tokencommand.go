package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/mig-controller/mig-controller/internal/config"
)

// CommandLine runs a command line of migctl and returns its exit status.
type CommandLine func(args []string, stdin io.Reader, stdout, stderr io.Writer) int

// tokenCommand is the first argument of "controller token …".
const tokenCommand = "token"

// runToken runs "controller token …": migctl's command of that name on the control socket of
// the controller that uses the data directory.
func runToken(args, environ []string, stdin io.Reader, stdout, stderr io.Writer, migctl CommandLine) int {
	own, rest := splitOptions(args, "--data-dir", "--config")
	o, err := config.Parse(own, environ)
	if err != nil {
		fmt.Fprintf(stderr, "controller: %v\n", err)
		return exitUsage
	}
	socket := absolute(config.ControlSocket(o.DataDir))
	help := slices.Contains(rest, "--help") || slices.Contains(rest, "-h")
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) && !help {
		fmt.Fprintf(stderr, "controller: no controller is running with the data directory %s: start it, or name its directory with --data-dir\n",
			absolute(o.DataDir))
		return exitFailure
	}
	return migctl(slices.Concat([]string{"--address=unix://" + socket, tokenCommand}, rest), stdin, stdout, stderr)
}

// splitOptions returns the arguments that set one of the options, and the others.
func splitOptions(args []string, options ...string) (own, rest []string) {
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(args[i], "=")
		if !slices.Contains(options, name) {
			rest = append(rest, args[i])
			continue
		}
		own = append(own, args[i])
		if !joined && i+1 < len(args) {
			i++
			own = append(own, args[i])
		}
	}
	return own, rest
}
