package session

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// openedAtOnce is how many sessions are opened concurrently. They usually share a commit;
	// more would make other inputs wait longer for theirs.
	openedAtOnce = 64
	// crowd is how many waiting sessions are a storm. From then on each takes crowdShare turns:
	// the reports of all that are connected already need time too, and operators do.
	crowd      = 128
	crowdShare = 2
)

// admission delays the opening of sessions, and refuses none: a few are opened at a time, in
// the order in which they ask. After a start, or when a network is back, all agents connect
// at once. If all of them waited for the engine, every other input, such as an operator's
// command, would wait behind the last of them.
//
// Its queue is bounded by the number of streams.
type admission struct {
	turns   *semaphore.Weighted // first come, first served
	waiting atomic.Int64
	stopped context.Context //nolint:containedctx // ends the waits
	stop    context.CancelFunc
}

func (a *admission) open(atOnce int64) {
	a.turns = semaphore.NewWeighted(atOnce)
	a.stopped, a.stop = context.WithCancel(context.Background())
}

// enter waits for a turn, and returns the function that ends it. It returns an error as soon as
// ctx ends or stop is called, unless a turn is available at once.
func (a *admission) enter(ctx context.Context) (leave func(), err error) {
	turns := int64(1)
	if a.waiting.Load() >= crowd {
		turns = crowdShare
	}
	if !a.turns.TryAcquire(turns) { // which nearly always succeeds
		if err := a.wait(ctx, turns); err != nil {
			return nil, err
		}
	}
	return func() { a.turns.Release(turns) }, nil
}

func (a *admission) wait(ctx context.Context, turns int64) error {
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.stopped, cancel)() //nolint:contextcheck // the wait has the context of its stream
	err := a.turns.Acquire(ctx, turns)
	if err != nil && a.stopped.Err() != nil {
		return fleet.ErrStopping
	}
	return err
}
