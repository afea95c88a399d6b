package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/measure"
	"github.com/mig-controller/mig-controller/bench/internal/report"
	"github.com/mig-controller/mig-controller/bench/internal/result"
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var p place
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	p.register(flags)
	runs := flags.Int("runs", 0, "how often each measure is run (default 5, and 10 for paced)")
	quick := flags.Bool("quick", false, "toy sizes, one run unless -runs is given: proves that the bench works")
	only := flags.String("only", "", "the `measures` to run, separated by commas: "+strings.Join(measure.Names(), ","))
	most := flags.Int("most", 0, "measure growth up to this number of VMs, where the limit of open files allows no more (default 20000)")
	out := flags.String("out", "bench.json", "the `file` for the results")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *runs < 0 || *runs == 0 && given(flags, "runs") {
		fmt.Fprintln(stderr, "-runs must be 1 or more")
		return errUsage
	}
	meta := p.meta(ctx, "bench run "+strings.Join(args, " "))
	b := &measure.Bench{Sizes: measure.Full, Runs: *runs, Progress: progress(stderr)}
	if *only != "" {
		b.Only = strings.Split(*only, ",")
	}
	if *quick {
		meta.Quick, b.Sizes = true, measure.Quick
		if !given(flags, "runs") {
			b.Runs = 1
		}
	}
	if *most > 0 {
		b.Sizes = b.Sizes.UpTo(*most)
	}
	programs, clean, err := p.programs(ctx)
	if err != nil {
		return err
	}
	defer clean()
	b.Programs = programs
	samples, err := b.Run(ctx)
	r := result.Results{Meta: meta, Samples: samples}
	if werr := r.Write(*out); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, report.Table(r))
	return nil
}

func given(flags *flag.FlagSet, name string) (yes bool) {
	flags.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

// progress writes lines with the time since the start.
func progress(w io.Writer) func(string, ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(w, "%6.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (p *place) meta(ctx context.Context, command string) result.Meta {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty if it does not exist
	return result.Meta{
		Command: strings.TrimSpace(command), Commit: p.commit(ctx), GoVersion: runtime.Version(),
		Kernel: strings.TrimSpace(string(kernel)), CPUs: runtime.NumCPU(), CPUModel: cpuModel(), Began: time.Now().UTC(),
	}
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // empty if it does not exist
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
