package measure

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/peer"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// operatorConns is how many connections the concurrent calls share.
const operatorConns = 8

// roundTrip measures the time from SendCommand until its answer reports the recorded ack,
// one command at a time, and the time of a disk sync during the same period.
func (b *Bench) roundTrip(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	const vms = 10
	return b.with(ctx, kind, vms, func(ctx context.Context, s scene) (Values, error) {
		o, err := load.NewOperator(s.server.Addr, 1)
		if err != nil {
			return nil, err
		}
		defer o.Close()
		disk, err := newSyncer(s.server.Dir)
		if err != nil {
			return nil, err
		}
		defer disk.close()
		before, err := s.server.Tally(ctx)
		if err != nil {
			return nil, err
		}
		var times, syncs []float64
		for i := range b.Sizes.RoundTrips {
			if i%10 == 0 { // interleaved: the disk's speed varies
				took, err := disk.sync()
				if err != nil {
					return nil, err
				}
				syncs = append(syncs, micros(took))
			}
			began := time.Now()
			if err := o.Command(ctx, s.fleet.ID(i%vms)); err != nil {
				return nil, err
			}
			times = append(times, micros(time.Since(began)))
		}
		return Values{
			"p50_us": result.Percentile(times, 50), "p99_us": result.Percentile(times, 99),
			"fsync_us": result.Percentile(syncs, 50),
		}, s.recorded(ctx, before, int64(len(times)))
	})
}

// commands measures how many commands per second are acked and recorded when each VM gets
// the next one as soon as it has acked the last.
func (b *Bench) commands(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.with(ctx, kind, b.Sizes.CommandVMs, func(ctx context.Context, s scene) (Values, error) {
		ends := time.Now().Add(b.Sizes.CommandFor)
		return s.command(ctx, s.fleet.Len(), func(int64) bool { return time.Now().Before(ends) })
	})
}

// command sends commands to atOnce VMs concurrently, round robin over all VMs, as long as
// more returns true for the number of the next command.
func (s scene) command(ctx context.Context, atOnce int, more func(int64) bool) (Values, error) {
	o, err := load.NewOperator(s.server.Addr, operatorConns)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	before, err := s.server.Tally(ctx)
	if err != nil {
		return nil, err
	}
	sp, err := begin(ctx, s.server)
	if err != nil {
		return nil, err
	}
	var next, done atomic.Int64
	var all errgroup.Group
	for first := range atOnce {
		all.Go(func() error {
			for vm := first; more(next.Add(1)); vm = (vm + atOnce) % s.fleet.Len() {
				if err := o.Command(ctx, s.fleet.ID(vm)); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	cause := all.Wait()
	w, _, err := sp.end(ctx)
	if cause != nil {
		return nil, cause
	}
	n := float64(done.Load())
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%d commands: %w", done.Load(), errNothing)
	}
	return Values{"per_second": n / w.took.Seconds(), "cpu_us": micros(w.cpu) / n}, s.recorded(ctx, before, done.Load())
}

// recorded returns an error unless the server has n more acks than before.
func (s scene) recorded(ctx context.Context, before peer.Tally, n int64) error {
	t, err := s.server.Tally(ctx)
	if err == nil && t.Acks-before.Acks != n {
		err = fmt.Errorf("%d of %d acks are recorded", t.Acks-before.Acks, n)
	}
	return err
}
