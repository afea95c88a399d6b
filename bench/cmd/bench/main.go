// Command bench measures the controller against what it could be instead.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/mig-controller/mig-controller/bench/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
}
