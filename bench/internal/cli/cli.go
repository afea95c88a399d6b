// Package cli owns the bench's command line.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
)

const usage = `bench measures the controller and compares it with a bare server.

  bench run     measure, and write the results to a file
  bench report  write docs/performance.md's tables and plots from results
  bench soak    run a fleet with mixed load for a long time
  bench peer    run the server to compare with (bench run starts it itself)
  bench call    make the calls of operators (bench run starts it itself)

bench COMMAND -h lists the options of a command.
`

// errUsage occurs when the command line is wrong and a message has been printed.
var errUsage = errors.New("usage")

// Main runs a command line and returns the exit status: 0, 2 for a wrong
// command line, 1 for any other failure.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	default:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	commands := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"run": run, "report": runReport, "soak": runSoak, "peer": runPeer, "call": runCall,
	}
	if len(args) > 0 {
		if command, ok := commands[args[0]]; ok {
			return command(ctx, args[1:], stdout, stderr)
		}
	}
	fmt.Fprint(stderr, usage)
	return errUsage
}

// parse reads the options of a command, which has no other arguments.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "bench %s takes options only, not %q\n", flags.Name(), flags.Arg(0))
		return errUsage
	}
	return nil
}
