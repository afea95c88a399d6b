package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/report"
	"github.com/mig-controller/mig-controller/bench/internal/result"
)

func runReport(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	in := flags.String("in", "bench.json", "the `files` with the results, separated by commas")
	page := flags.String("page", "../docs/performance.md", "the Markdown `file` to write into; the plots go into the directory of its name")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	r, err := result.ReadAll(strings.Split(*in, ","))
	if err != nil {
		return err
	}
	if err := report.Write(r, *page); err != nil {
		return err
	}
	fmt.Fprint(stdout, report.Table(r))
	return nil
}
