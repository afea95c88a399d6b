package readiness

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errClosed is the result of checks after Close.
var errClosed = errors.New("the controller is stopping")

// check is a Check with its latest call. Checks.mu protects it.
type check struct {
	Check
	calls  int // how many have begun
	latest *call
}

// call is one call of a check.
type call struct {
	number int // from 1
	began  time.Time
	done   chan struct{} // closed when it has returned
	took   time.Duration // set before done is closed, like err
	err    error
}

// result returns the result of a call that begins now or later, or reports an earlier one that
// does not return in time.
func (c *Checks) result(ctx context.Context, k *check) Result {
	asked := time.Now()
	limit := time.NewTimer(Timeout)
	defer limit.Stop()
	before := c.begun(k)
	for {
		latest := c.callAfter(ctx, k, before)
		if latest == nil {
			return Result{Name: k.Name, Err: errClosed, At: asked}
		}
		select {
		case <-latest.done:
			if latest.number > before {
				return Result{Name: k.Name, Err: latest.err, At: latest.began, Took: latest.took}
			}
		case <-ctx.Done():
			return Result{Name: k.Name, Err: ctx.Err(), At: latest.began, Took: time.Since(latest.began)}
		case <-limit.C:
			// The time in which this caller waited for an earlier call counts as well.
			at := latest.began
			if at.After(asked) {
				at = asked
			}
			took := time.Since(at)
			return Result{Name: k.Name, Err: noResult(k.Name, took), At: at, Took: took}
		}
	}
}

// noResult is the error of a check that has not returned.
func noResult(name string, after time.Duration) error {
	return fmt.Errorf("%s: no result after %s", name, after.Round(time.Second/10))
}

// begun returns how many calls of k have begun.
func (c *Checks) begun(k *check) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.calls
}

// callAfter returns the latest call of k if it has not returned or is not one of the first n,
// and otherwise a new one. It returns nil after Close.
func (c *Checks) callAfter(ctx context.Context, k *check, n int) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if latest := k.latest; latest != nil && (latest.number > n || !latest.returned()) {
		return latest
	}
	if c.closed {
		return nil
	}
	k.calls++
	next := &call{number: k.calls, began: time.Now(), done: make(chan struct{})}
	k.latest = next
	// Other callers share the call, so it continues when this one is gone.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	c.running.Go(func() {
		defer cancel()
		next.run(limited, k.Check)
	})
	return next
}

func (c *call) returned() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *call) run(ctx context.Context, k Check) {
	defer close(c.done)
	c.err = k.Run(ctx)
	c.took = time.Since(c.began)
	if errors.Is(c.err, context.DeadlineExceeded) && ctx.Err() != nil {
		c.err = noResult(k.Name, c.took)
	}
}
