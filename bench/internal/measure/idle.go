package measure

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// unconnected runs fn on a fresh server with VMs that have not connected yet.
func (b *Bench) unconnected(
	ctx context.Context, kind target.Kind, vms int, fn func(context.Context, scene) (Values, error),
) (Values, error) {
	s, err := b.fresh(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer s.Kill()
	return before(ctx, s, fleetName, vms, fn)
}

// idle measures the memory of a connected VM that sends nothing.
func (b *Bench) idle(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.unconnected(ctx, kind, b.Sizes.IdleVMs, func(ctx context.Context, s scene) (Values, error) {
		without, err := proc.ReadStatus(s.server.PID())
		if err != nil {
			return nil, err
		}
		if err := connectAll(ctx, s.server, s.fleet); err != nil {
			return nil, err
		}
		connected := time.Now()
		if err := caughtUp(ctx, s.server); err != nil {
			return nil, err
		}
		// Memory used while many VMs connect is released slowly.
		if err := pause(ctx, b.Sizes.IdleSettle-time.Since(connected)); err != nil {
			return nil, err
		}
		with, err := proc.ReadStatus(s.server.PID())
		if err != nil {
			return nil, err
		}
		return Values{"kib_per_stream": kibPerStream(without, with, s.fleet), "threads": float64(with.Threads)}, nil
	})
}

func kibPerStream(without, with proc.Status, f *load.Fleet) float64 {
	return float64(with.RSS-without.RSS) / 1024 / float64(f.Len())
}

// connect measures how many VMs per second connect and register their runners, as recorded
// by the server: session, ack and event.
func (b *Bench) connect(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.unconnected(ctx, kind, b.Sizes.ConnectVMs, timeConnect)
}

// timeConnect measures how long it takes to connect the VMs.
func timeConnect(ctx context.Context, s scene) (Values, error) {
	sp, err := begin(ctx, s.server)
	if err != nil {
		return nil, err
	}
	if err := connectAll(ctx, s.server, s.fleet); err != nil {
		return nil, err
	}
	w, _, err := sp.end(ctx)
	n := float64(s.fleet.Len())
	return Values{"per_second": n / w.took.Seconds(), "cpu_us": micros(w.cpu) / n}, err
}

// connectAll connects the VMs and waits until the server has recorded everything: their
// sessions, the acks of register_runner and the following events.
func connectAll(ctx context.Context, s *target.Server, f *load.Fleet) error {
	before, err := s.Tally(ctx)
	if err != nil {
		return err
	}
	if err := f.Connect(ctx); err != nil {
		return err
	}
	n := int64(f.Len())
	return await(ctx, "register all VMs", time.Minute, 5*time.Millisecond, func() (bool, error) {
		t, err := s.Tally(ctx)
		return t.Sessions == n && t.Acks-before.Acks == n && t.Events-before.Events == n, err
	})
}

// caughtUp waits until the server has finished all work caused by connecting: its files are
// written slowly on purpose.
func caughtUp(ctx context.Context, s *target.Server) error {
	return await(ctx, "finish the work caused by connecting", 5*time.Minute, 50*time.Millisecond, func() (bool, error) {
		return s.CaughtUp(ctx)
	})
}
