package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// reconnect measures the time from kill -9 until the immediately restarted controller has
// the sessions of all VMs again.
func (b *Bench) reconnect(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	n := int64(b.Sizes.ReconnectVMs)
	first, err := b.fresh(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer first.Kill()
	f, err := load.NewFleet(first.Addr, first.TLS, fleetName, int(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	watched, stop := first.Watch(ctx)
	defer stop()
	if err := connectAll(watched, first, f); err != nil {
		return nil, err
	}
	began := time.Now()
	first.Kill()
	second, err := b.Programs.StartIn(ctx, kind, first.Dir, first.Ports())
	if err != nil {
		return nil, err
	}
	defer second.Kill()
	serving := time.Since(began)
	watched, stop = second.Watch(ctx)
	defer stop()
	after, err := awaitSessions(watched, second, n)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	if after != n {
		return nil, fmt.Errorf("%d acks before the crash and %d after: a VM was registered again", n, after)
	}
	return Values{"seconds": took.Seconds(), "serving_seconds": serving.Seconds()}, nil
}

// awaitSessions waits for n sessions and returns the number of acks.
func awaitSessions(ctx context.Context, s *target.Server, n int64) (acks int64, err error) {
	err = await(ctx, fmt.Sprintf("%d sessions", n), 2*time.Minute, 50*time.Millisecond, func() (bool, error) {
		t, err := s.Tally(ctx)
		acks = t.Acks
		return t.Sessions == n, err
	})
	return acks, err
}
