package load

import (
	"context"
	"sync"
	"time"
)

// pacers is how many goroutines send at a pace: if a connection is full, only the VMs of
// one of them wait.
const pacers = 8

// Flood makes every VM send heartbeats as fast as its connection accepts them, until the
// context ends. A VM whose stream ends stops; see Ends.
func (f *Fleet) Flood(ctx context.Context) {
	var all sync.WaitGroup
	for i := range f.places {
		v := f.places[i].Load()
		all.Go(func() {
			for more := true; more && ctx.Err() == nil; {
				more = v.beat()
			}
		})
	}
	all.Wait()
}

// Pace makes the VMs, in turn, send perSecond heartbeats a second in total, until the
// context ends. A VM that is not connected skips its turn.
func (f *Fleet) Pace(ctx context.Context, perSecond int) {
	var all sync.WaitGroup
	n := min(pacers, len(f.places))
	for first := range n {
		all.Go(func() { f.pace(ctx, first, n, float64(perSecond)/float64(n)) })
	}
	all.Wait()
}

// pace sends for every stride-th VM.
func (f *Fleet) pace(ctx context.Context, first, stride int, perSecond float64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	start, turn := time.Now(), first
	for sent := 0; ctx.Err() == nil; {
		for due := int(time.Since(start).Seconds() * perSecond); sent < due && ctx.Err() == nil; sent++ {
			f.places[turn].Load().beat()
			if turn += stride; turn >= len(f.places) {
				turn = first
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
