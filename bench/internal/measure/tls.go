package measure

import (
	"context"
	"maps"

	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// tls measures what TLS costs: what other measures do, one after the other, with
// fewer VMs and for a shorter time.
func (b *Bench) tls(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	short := *b
	s := &short.Sizes
	s.ConnectVMs, s.IdleVMs, s.PacedVMs = s.TLSVMs, s.TLSVMs, s.TLSVMs
	s.IdleSettle, s.PacedFor, s.FloodFor, s.Warm = s.TLSSettle, s.TLSFor, s.TLSFor, s.TLSWarm
	all := Values{}
	for _, part := range []struct {
		name string
		run  func(context.Context, target.Kind, int) (Values, error)
	}{{"connect", short.connect}, {"idle", short.idle}, {"paced", short.paced}, {"flood", short.flood}} {
		v, err := part.run(ctx, kind, 0)
		if err != nil {
			return nil, err
		}
		for name, value := range maps.All(v) {
			all[part.name+"_"+name] = value
		}
	}
	return all, nil
}
