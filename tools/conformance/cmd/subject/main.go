// Command subject is the server that the connectrpc conformance suite starts and tests.
// Its argument selects the controller's address: http or grpc.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/subject"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: subject http|grpc")
		return 2
	}
	if err := subject.Run(ctx, os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "subject:", err)
		return 1
	}
	return 0
}
