package cli

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
)

// runCall calls until its standard input ends, and then writes the times of the calls.
func runCall(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	addr := flags.String("addr", "", "the controller's `address`")
	fleet := flags.String("fleet", "", "the `prefix` of the ids of the VMs")
	vms := flags.Int("vms", 1, "the number of VMs")
	rate := flags.Int("rate", 1, "calls of each kind a second")
	most := flags.Duration("for", time.Minute, "maximum duration")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, *most)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends in any case when the parent does
		stop()
	}()
	times, err := load.Call(ctx, load.Calls{Addr: *addr, Fleet: *fleet, VMs: *vms, PerSecond: *rate})
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(times)
}
