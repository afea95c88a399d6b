// Command controller is the MIG Controller: it commands fleets of short-lived
// CI machines.
package main

import (
	"os"

	"github.com/mig-controller/mig-controller/internal/app"
	"github.com/mig-controller/mig-controller/internal/cli"
)

func main() { os.Exit(app.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Main)) }
