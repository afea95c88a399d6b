package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// flood measures how many heartbeats per second are processed when a few VMs send as many
// as possible.
func (b *Bench) flood(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.with(ctx, kind, b.Sizes.FloodVMs, func(ctx context.Context, s scene) (Values, error) {
		return b.beats(ctx, s, b.Sizes.FloodFor, s.fleet.Flood)
	})
}

// paced measures the cost of a heartbeat at a rate below the server's limit.
func (b *Bench) paced(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.with(ctx, kind, b.Sizes.PacedVMs, func(ctx context.Context, s scene) (Values, error) {
		return b.beats(ctx, s, b.Sizes.PacedFor, func(ctx context.Context) { s.fleet.Pace(ctx, b.Sizes.PacedRate) })
	})
}

// beats measures the heartbeats that the server processes while send sends them. In the end
// every heartbeat that was sent must have been processed.
func (b *Bench) beats(ctx context.Context, s scene, d time.Duration, send func(context.Context)) (Values, error) {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		send(sending)
	}()
	if err := pause(ctx, b.Sizes.Warm); err != nil {
		return nil, err
	}
	sp, err := begin(ctx, s.server)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	_, count, err := sp.end(ctx)
	if err != nil {
		return nil, err
	}
	stop()
	<-sent
	w, err := count()
	if err != nil {
		return nil, err
	}
	if err := s.arrived(ctx); err != nil {
		return nil, err
	}
	return Values{"per_second": w.beats / w.took.Seconds(), "cpu_us": micros(w.cpu) / w.beats}, nil
}

// arrived waits until every heartbeat that was sent has been processed.
func (s scene) arrived(ctx context.Context) error {
	var n int64
	var from target.Mark
	err := await(ctx, "all heartbeats arrive", time.Minute, 100*time.Millisecond, func() (bool, error) {
		to, err := s.server.Mark(ctx)
		if err != nil {
			return false, err
		}
		more, err := s.server.Between(ctx, from, to)
		n, from = n+more, to
		return n == s.fleet.Sent(), err
	})
	if err != nil {
		return fmt.Errorf("%d heartbeats were sent, %d arrived: %w", s.fleet.Sent(), n, err)
	}
	return nil
}
