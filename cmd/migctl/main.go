// Command migctl is the operator's tool of the MIG Controller.
package main

import (
	"os"

	"github.com/mig-controller/mig-controller/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
