package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/report"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

func runReport(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	in := flags.String("in", "bench.json", "the `files` with the results, separated by commas; with -soak, none unless they are given")
	long := flags.String("soak", "", "the `file` that bench soak has written: its section of the page is written, too")
	page := flags.String("page", "../docs/performance.md", "the Markdown `file` to write into; the plots go into the directory of its name")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *long == "" || given(flags, "in") {
		r, err := result.ReadAll(strings.Split(*in, ","))
		if err != nil {
			return err
		}
		if err := report.Write(r, *page); err != nil {
			return err
		}
		fmt.Fprint(stdout, report.Table(r))
	}
	if *long == "" {
		return nil
	}
	v, err := soak.Read(*long)
	if err != nil {
		return err
	}
	if err := report.WriteSoak(v, *page); err != nil {
		return err
	}
	fmt.Fprint(stdout, report.SoakTable(v))
	return nil
}
