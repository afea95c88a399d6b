package readiness

import (
	"fmt"
	"sync"
	"time"
)

// drain is the condition of NotDraining.
type drain struct {
	began chan struct{}
	once  sync.Once
	stops time.Time // set before began is closed
}

func newDrain() drain { return drain{began: make(chan struct{})} }

// Drain makes NotDraining fail from now on, and closes Draining. stops is when the stop is to
// begin; the check returns it as the reason. Only the first call has an effect.
func (c *Checks) Drain(stops time.Time) {
	c.drain.once.Do(func() {
		c.drain.stops = stops
		close(c.drain.began)
	})
}

// Draining is closed when Drain is called.
func (c *Checks) Draining() <-chan struct{} { return c.drain.began }

// check returns why the controller is not ready at this time, and nil before Drain.
func (d *drain) check(now time.Time) error {
	select {
	case <-d.began:
	default:
		return nil
	}
	left := d.stops.Sub(now)
	if left <= 0 {
		return errClosed
	}
	return fmt.Errorf("draining: stops in %s", (left + time.Second - 1).Truncate(time.Second))
}
