// Package wallclock owns the time of the process: a clock that runs with the monotonic
// clock of the system, and steps only when it is made to.
//
// Whatever compares a time with the present may trust that it does not jump by itself.
// The caller of Adopt moves what is compared with the present in the same step: the
// engine does, between two groups.
package wallclock

import (
	"sync/atomic"
	"time"
)

const (
	// tolerance is how far the wall clock may be from the process's before it counts as
	// having jumped.
	tolerance = 2 * time.Second
	// atOnce is how long reading both may take, at most: a process that was stopped
	// between the two would see a jump that was none.
	atOnce = 100 * time.Millisecond
)

// Clock shows the wall clock's time at its start plus what has passed since. Its methods
// are safe for concurrent use.
//
// What has passed is what the monotonic clock shows, which on Linux stands still while
// the machine is suspended: to the process that looks like a jump forward by the length
// of the suspension. Deadlines move with it, so that a suspended machine ends no command;
// and connections are judged as if no time had passed.
type Clock struct {
	wall    func() time.Time
	elapsed func() time.Duration
	base    atomic.Int64 // shown when nothing had passed, in Unix nanoseconds
}

// Jump is a step that a Clock has made.
type Jump struct {
	// At is what the clock showed right after it.
	At time.Time
	// By is how far it stepped: below zero for back, zero for no step.
	By time.Duration
}

// System returns a Clock that runs with the system's clocks.
func System() *Clock {
	start := time.Now()
	return New(func() time.Time { return time.Now().Round(0) }, func() time.Duration { return time.Since(start) })
}

// New returns a Clock that begins with the time that wall returns. elapsed returns what
// has passed since some moment, and never falls.
func New(wall func() time.Time, elapsed func() time.Duration) *Clock {
	c := &Clock{wall: wall, elapsed: elapsed}
	c.base.Store(wall().UnixNano() - int64(elapsed()))
	return c
}

// Now returns the time, in UTC and without a monotonic part.
func (c *Clock) Now() time.Time { return time.Unix(0, c.base.Load()+int64(c.elapsed())).UTC() }

// Off returns how far the wall clock is ahead of c, below zero for behind, if that is
// more than two seconds, and else zero. It is cheap.
func (c *Clock) Off() time.Duration {
	before := c.elapsed()
	wall := c.wall()
	after := c.elapsed()
	off := time.Duration(wall.UnixNano() - c.base.Load() - int64(after))
	if after-before > atOnce || off.Abs() <= tolerance {
		return 0
	}
	return off
}

// Adopt makes c show what the wall clock shows, if they are Off, and returns the step.
// One goroutine at a time may call it.
func (c *Clock) Adopt() Jump {
	by := c.Off()
	c.base.Add(int64(by))
	return Jump{At: c.Now(), By: by}
}

// Stale returns by how much a time has to be moved to be as the clock shows it, or zero.
// The clock has shown it before or after j, at a moment that was not long ago at now, and it has
// not been moved since.
func (j Jump) Stale(t, now time.Time) time.Duration {
	if j.By > 0 && t.Before(j.At) || j.By < 0 && t.Sub(now) > -j.By/2 {
		return j.By
	}
	return 0
}
