package measure

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// start measures the time from exec until the controller is ready, with an existing large
// database.
func (b *Bench) start(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	dir, err := b.filled(ctx, storedSize{b.Sizes.StartVMs, b.Sizes.StartCommands})
	if err != nil {
		return nil, err
	}
	// The address must be known in advance.
	before, err := b.Programs.StartIn(ctx, kind, dir, target.AnyPort)
	if err != nil {
		return nil, err
	}
	defer before.Kill()
	if err := before.Stop(); err != nil {
		return nil, err
	}
	began := time.Now()
	s, err := b.Programs.Launch(kind, dir, before.Ports())
	if err != nil {
		return nil, err
	}
	defer s.Kill()
	if err := s.AwaitReady(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	cpu, err := proc.CPU(s.PID())
	if err != nil {
		return nil, err
	}
	return Values{"seconds": took.Seconds(), "cpu_seconds": cpu.Seconds()}, s.Stop()
}
