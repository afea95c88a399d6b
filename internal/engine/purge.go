package engine

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Retention is how long each class is kept. Zero is forever.
type Retention struct {
	Events     time.Duration
	Heartbeats time.Duration
	// Commands counts from when a command ended.
	Commands time.Duration
	// VMs counts from when a VM that is not connected was last seen.
	VMs     time.Duration
	Changes time.Duration
}

// purgeBatch is how many rows of a class are removed at a time, so that a purge does
// not keep commits waiting for long: rows of heartbeats are large.
const purgeBatch = 200

// Purge removes what is older than the retention, in bounded steps, until nothing is
// left to remove. It returns how many rows it removed, also with an error. Events that
// are not marked as journaled stay.
func (e *Engine) Purge(ctx context.Context, r Retention, now time.Time) (int, error) {
	before := func(keep time.Duration) time.Time {
		if keep == 0 {
			return time.Time{}
		}
		return now.Add(-keep)
	}
	through, err := e.Driver.Mark(ctx, journaled)
	if err != nil {
		return 0, unavailable(ctx, err)
	}
	c := store.Cutoffs{
		Now: now, Changes: before(r.Changes), Heartbeats: before(r.Heartbeats), Events: before(r.Events),
		EventsThrough: through, Commands: before(r.Commands), VMs: before(r.VMs),
	}
	defer e.cache.forget()
	for total := 0; ; {
		n, err := e.Driver.Purge(ctx, c, purgeBatch)
		total += n
		if err != nil || n == 0 {
			return total, unavailable(ctx, err)
		}
	}
}
