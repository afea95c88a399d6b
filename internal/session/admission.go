package session

import (
	"context"
	"sync/atomic"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// openedAtOnce is how many sessions are opened concurrently. They usually share a commit; more
// would make other inputs wait longer for theirs.
const openedAtOnce = 64

// admission delays the opening of sessions, and refuses none: a few are opened at a time, in
// the order in which they ask. After a start, or when a network is back, all agents connect
// at once. If all of them waited for the engine, every other input, such as an operator's
// command, would wait behind the last of them.
//
// Its queue is bounded by the number of streams.
type admission struct {
	turns   chan struct{} // has an element for each session that is being opened
	waiting atomic.Int64
}

func newAdmission(atOnce int) admission { return admission{turns: make(chan struct{}, atOnce)} }

// enter waits for a turn; leave must follow. It returns an error, without a turn, as soon as
// ctx ends or stopping is closed.
func (a *admission) enter(ctx context.Context, stopping <-chan struct{}) error {
	select {
	case a.turns <- struct{}{}: // nearly always
		return nil
	default:
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case a.turns <- struct{}{}: // a channel serves its senders in order
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stopping:
		return fleet.ErrStopping
	}
}

// leave lets the next one enter.
func (a *admission) leave() { <-a.turns }
