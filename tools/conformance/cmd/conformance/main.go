// Command conformance runs the suites that test the controller's protocols.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/runner"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runner.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
}
