package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/report"
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
	flags.Float64Var(&o.Replace, "replace", 1, "how many VMs end each second, with a new one in the place of each")
	flags.DurationVar(&o.Every, "every", 10*time.Second, "the time between two samples")
	out := flags.String("out", "soak.json", "the `file` for the samples")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if o.VMs < 1 || o.For <= 0 || o.Beat <= 0 || o.Every <= 0 || o.Kills < 0 || o.Drops < 0 || o.Commands < 0 || o.Replace < 0 {
		fmt.Fprintln(stderr, "-vms, -for, -beat and -every must be more than 0, the others not less")
		return errUsage
	}
	meta := p.meta(ctx, "bench soak "+strings.Join(args, " "))
	programs, clean, err := p.programs(ctx)
	if err != nil {
		return err
	}
	defer clean()
	o.Programs = programs
	v, err := soak.Run(ctx, o)
	v.Meta = meta
	if werr := v.Write(*out); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, report.SoakTable(v))
	return v.Err()
}
