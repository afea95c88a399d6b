package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// place contains the paths of the repository, of the data and of the controller.
type place struct{ repo, dir, controller, options string }

func (p *place) register(flags *flag.FlagSet) {
	flags.StringVar(&p.repo, "repo", "..", "the `directory` of the repository")
	flags.StringVar(&p.dir, "dir", "", "`directory` on the disk to measure with (default: the one for temporary files)")
	flags.StringVar(&p.controller, "controller", "", "the controller's `program` (default: built from the repository)")
	flags.StringVar(&p.options, "options", "", "`options` for the controller, separated by spaces, to try something (default: its own defaults)")
}

// programs finds or builds the programs to measure. clean removes the directory.
func (p *place) programs(ctx context.Context) (programs target.Programs, clean func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return programs, nil, err
	}
	dir, err := os.MkdirTemp(p.dir, "bench-")
	if err != nil {
		return programs, nil, err
	}
	clean = func() { _ = os.RemoveAll(dir) }
	programs = target.Programs{Bench: self, Controller: p.controller, Options: strings.Fields(p.options), Dir: dir}
	if p.controller != "" {
		return programs, clean, nil
	}
	programs.Controller = filepath.Join(dir, "controller")
	//nolint:gosec // the program is go
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", programs.Controller, "./cmd/controller")
	build.Dir = p.repo
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		clean()
		return programs, nil, fmt.Errorf("build the controller: %w\n%s", err, out)
	}
	return programs, clean, nil
}

// commit returns the current commit of the repository, or "unknown".
func (p *place) commit(ctx context.Context) string {
	describe := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*")
	describe.Dir = p.repo
	out, err := describe.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
