package measure

import (
	"context"
	"os"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// storedSize is the size of a database.
type storedSize struct{ vms, commands int }

// filled returns the directory of a stopped controller with a database of this size. It is
// filled once and kept until Run ends.
func (b *Bench) filled(ctx context.Context, size storedSize) (dir string, err error) {
	if dir, ok := b.stored[size]; ok {
		return dir, nil
	}
	if dir, err = os.MkdirTemp(b.Programs.Dir, "stored-"); err != nil {
		return "", err
	}
	b.stored[size] = dir
	began := time.Now()
	if err := b.pattern(ctx, dir); err != nil {
		return "", err
	}
	if err := target.Fill(ctx, dir, patternName+"-000000", size.vms, size.commands); err != nil {
		return "", err
	}
	b.Progress("%-13s filled a database with %d VMs and %d commands in %.0f s",
		"", size.vms, size.commands, time.Since(began).Seconds())
	return dir, nil
}

// patternName is the prefix of the pattern VM's id.
const patternName = "pattern"

// pattern runs a VM through a command, as the pattern for copies.
func (b *Bench) pattern(ctx context.Context, dir string) error {
	s, err := b.Programs.StartIn(ctx, target.Controller, dir, target.AnyPort)
	if err != nil {
		return err
	}
	defer s.Kill()
	_, err = b.on(ctx, s, patternName, 1, func(ctx context.Context, s scene) (Values, error) {
		o, err := load.NewOperator(s.server.Addr, 1)
		if err != nil {
			return nil, err
		}
		defer o.Close()
		return nil, o.Command(ctx, s.fleet.ID(0))
	})
	if err != nil {
		return err
	}
	return s.Stop()
}
