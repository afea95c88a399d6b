package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

func runSoak(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var p place
	o := soak.Options{Progress: progress(stderr)}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	p.register(flags)
	flags.IntVar(&o.VMs, "vms", 5000, "how many VMs")
	flags.DurationVar(&o.For, "for", time.Hour, "how long")
	flags.IntVar(&o.Kills, "kills", 3, "how often the controller is killed, all in the first half")
	flags.DurationVar(&o.Beat, "beat", 15*time.Second, "the time between two heartbeats of a VM")
	flags.Float64Var(&o.Drops, "drops", 2, "how many connections are dropped each second")
	flags.Float64Var(&o.Commands, "commands", 20, "how many commands are sent each second")
	flags.DurationVar(&o.Every, "every", 10*time.Second, "the time between two samples")
	out := flags.String("out", "soak.json", "the `file` for the samples")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if o.VMs < 1 || o.For <= 0 || o.Beat <= 0 || o.Every <= 0 || o.Kills < 0 || o.Drops < 0 || o.Commands < 0 {
		fmt.Fprintln(stderr, "-vms, -for, -beat and -every must be more than 0, the others not less")
		return errUsage
	}
	programs, clean, err := p.programs(ctx)
	if err != nil {
		return err
	}
	defer clean()
	o.Programs = programs
	v, err := soak.Run(ctx, o)
	if text, jerr := json.MarshalIndent(v, "", "  "); jerr == nil {
		if werr := os.WriteFile(*out, append(text, '\n'), 0o600); werr != nil {
			return werr
		}
	}
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, v)
	return v.Err()
}
