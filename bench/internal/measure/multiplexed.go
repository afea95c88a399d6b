package measure

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

const (
	// multiplexedWithin is the maximum duration of a run.
	multiplexedWithin = 4 * time.Minute
	// multiplexedMemory is how much memory this many VMs may use before garbage is
	// collected.
	multiplexedMemory = 2 * memoryLimit
)

// multiplexed measures a large fleet behind a proxy, whose streams share a few connections:
// the time until all of it is registered, and then memory and processor time while every VM
// sends heartbeats at the usual interval.
func (b *Bench) multiplexed(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, multiplexedWithin, fmt.Errorf("it took longer than %s", multiplexedWithin))
	defer cancel()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(multiplexedMemory))
	s, err := b.fresh(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer s.Kill()
	size := b.Sizes
	fleet := func() (*load.Fleet, error) {
		return load.NewMultiplexed(s.Addr, fleetName, size.MultiplexedVMs, size.MultiplexedConns)
	}
	return of(ctx, s, fleet, func(ctx context.Context, s scene) (Values, error) {
		without, err := proc.ReadStatus(s.server.PID())
		if err != nil {
			return nil, err
		}
		connect, err := timeConnect(ctx, s)
		if err != nil {
			return nil, err
		}
		registered := float64(s.fleet.Len()) / connect["per_second"]
		b.Progress("%-13s all are registered after %.1f s", "", registered)
		b := *b
		b.Sizes.Warm = size.MultiplexedBeat // every VM sends one before the measurement
		rate := int(float64(size.MultiplexedVMs) / size.MultiplexedBeat.Seconds())
		beats, err := b.beats(ctx, s, size.MultiplexedFor, func(ctx context.Context) { s.fleet.Pace(ctx, rate) })
		if err != nil {
			return nil, err
		}
		with, err := proc.ReadStatus(s.server.PID())
		return Values{
			"registered_seconds": registered,
			"kib_per_session":    kibPerStream(without, with, s.fleet),
			"per_second":         beats["per_second"],
			"core_percent":       beats["per_second"] * beats["cpu_us"] / 1e6 * 100,
		}, err
	})
}
