package measure

import (
	"context"
	"maps"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// tls measures the cost of TLS: short versions of connect, idle, paced and flood. The flood
// uses a server of its own, while the other one becomes idle.
func (b *Bench) tls(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.unconnected(ctx, kind, b.Sizes.TLSVMs, func(ctx context.Context, s scene) (Values, error) {
		short := *b
		short.Sizes.FloodFor, short.Sizes.Warm = b.Sizes.TLSFor, b.Sizes.TLSWarm
		without, err := proc.ReadStatus(s.server.PID())
		if err != nil {
			return nil, err
		}
		connect, err := timeConnect(ctx, s)
		if err != nil {
			return nil, err
		}
		connected := time.Now()
		flood, err := short.flood(ctx, kind, 0)
		if err != nil {
			return nil, err
		}
		if err := pause(ctx, b.Sizes.TLSSettle-time.Since(connected)); err != nil {
			return nil, err
		}
		with, err := proc.ReadStatus(s.server.PID())
		if err != nil {
			return nil, err
		}
		paced, err := short.beats(ctx, s, b.Sizes.TLSFor, func(ctx context.Context) { s.fleet.Pace(ctx, b.Sizes.PacedRate) })
		if err != nil {
			return nil, err
		}
		all := Values{"idle_kib_per_stream": kibPerStream(without, with, s.fleet)}
		for part, values := range map[string]Values{"connect": connect, "flood": flood, "paced": paced} {
			for name, value := range maps.All(values) {
				all[part+"_"+name] = value
			}
		}
		return all, nil
	})
}
