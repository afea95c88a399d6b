package engine

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Counts are how many VMs and open commands are stored.
type Counts struct {
	// VMs has their agents' reported states as Status. Queues has those of fleet.Queues that
	// are not empty.
	store.Counts
	// OldestPending is when the oldest pending command of a connected VM, and of any other, was
	// accepted; zero if there is none.
	OldestPending struct{ Connected, Offline time.Time }
}

// Counts counts VMs and open commands. It takes time in proportion to them, but does not
// delay commits.
func (e *Engine) Counts(ctx context.Context) (c Counts, err error) {
	if c.Counts, err = e.Driver.Counts(ctx); err != nil {
		return Counts{}, unavailable(ctx, err)
	}
	if c.OldestPending.Connected, err = e.oldestPending(ctx, c.Queues, true); err != nil {
		return Counts{}, err
	}
	if c.OldestPending.Offline, err = e.oldestPending(ctx, c.Queues, false); err != nil {
		return Counts{}, err
	}
	return c, nil
}

// oldestPending returns when the oldest pending command of the VMs that are connected, or of
// the others, was accepted; zero if there is none.
func (e *Engine) oldestPending(ctx context.Context, queues []store.QueueCount, connected bool) (time.Time, error) {
	var first int64
	for _, q := range queues {
		if q.Connected == connected && fleet.Queue(q.Queue) != fleet.QueueDelivered && (first == 0 || q.First < first) {
			first = q.First
		}
	}
	if first == 0 {
		return time.Time{}, nil
	}
	oldest, _, err := e.Commands(ctx, store.CommandQuery{Before: first + 1}, 1)
	if err != nil || len(oldest) == 0 || oldest[0].Seq != first || oldest[0].State != fleet.Pending { // it may have ended meanwhile
		return time.Time{}, err
	}
	return oldest[0].AcceptedAt, nil
}
