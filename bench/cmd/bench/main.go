// Command bench measures the controller and compares it with a bare server.
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
