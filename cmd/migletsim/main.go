// Command migletsim runs a fleet of simulated MIGlets against a controller.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mig-controller/mig-controller/internal/sim"
)

// version is set at build time.
var version = "dev"

const (
	exitOK        = 0
	exitNoneCame  = 1 // no VM reached the controller
	exitBadOption = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the fleet until --duration is over or the process is interrupted, and returns
// the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	opts, code, done := parse(args, stdout, stderr)
	if done {
		return code
	}
	fleet, err := newFleet(opts, stderr)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "migletsim: %v\n", err)
		return exitBadOption
	}
	warnOfFileLimit(stderr, len(fleet.Agents()))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if opts.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.Duration)
		defer cancel()
	}
	// A second Ctrl-C ends the process immediately.
	defer context.AfterFunc(ctx, stop)()
	return play(ctx, fleet, opts, stdout)
}

// play runs the fleet and prints its progress.
func play(ctx context.Context, fleet *sim.Fleet, opts options, out io.Writer) int {
	begin := time.Now()
	agents := len(fleet.Agents())
	_, _ = fmt.Fprintf(out, "%s against %s, seed %d\n", plural(agents, "agent"), opts.Controller, opts.Seed)

	exited := make(chan struct{})
	go func() { defer close(exited); fleet.Run(ctx) }()
	ticker := time.NewTicker(opts.SummaryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_, _ = fmt.Fprintln(out, summaryLine(fleet.Snapshot(), agents, time.Since(begin)))
		case <-exited:
			final := fleet.Snapshot()
			_, _ = fmt.Fprint(out, finalSummary(final, agents, time.Since(begin)))
			if final.Connects == 0 && final.Posts == 0 {
				_, _ = fmt.Fprintf(out, "\nNo VM connected. Is there a controller at %s?\n", opts.Controller)
				return exitNoneCame
			}
			return exitOK
		}
	}
}

func newFleet(opts options, stderr io.Writer) (*sim.Fleet, error) {
	cfg, err := opts.fleetConfig()
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(opts.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	cfg.Agent.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	fleet, err := sim.NewFleet(cfg)
	if err != nil {
		return nil, nameOption(err)
	}
	return fleet, nil
}
