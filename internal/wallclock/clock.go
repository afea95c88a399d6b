// Package wallclock owns the time of the process: a clock that follows the system's
// monotonic clock, and steps only on request.
//
// Code that compares a time with the present may rely on the clock not to jump by itself.
// The caller of Adopt shifts the times that are compared with the present in the same step:
// the engine does so between two groups.
package wallclock

import (
	"sync/atomic"
	"time"
)

const (
	// tolerance is how far the wall clock may deviate before it counts as having jumped.
	tolerance = 2 * time.Second
	// atOnce is the maximum time for reading both clocks: a process that was suspended
	// between the two reads would otherwise detect a false jump.
	atOnce = 100 * time.Millisecond
)

// Clock shows the wall clock's time at its start plus the time elapsed since. It is safe
// for concurrent use.
//
// The elapsed time is that of the monotonic clock, which on Linux stands still while the
// machine is suspended: to the process that looks like a jump forward by the length of the
// suspension. Deadlines are shifted by it, so that a suspended machine ends no command; and
// connections are judged as if no time had passed.
type Clock struct {
	wall    func() time.Time
	elapsed func() time.Duration
	base    atomic.Int64 // the time at zero elapsed time, in Unix nanoseconds
}

// Jump is a step of a Clock.
type Jump struct {
	// At is the time right after the step.
	At time.Time
	// By is the size of the step: negative for back, zero for no step.
	By time.Duration
}

// System returns a Clock that uses the system's clocks.
func System() *Clock {
	start := time.Now()
	return New(func() time.Time { return time.Now().Round(0) }, func() time.Duration { return time.Since(start) })
}

// New returns a Clock that starts at the time that wall returns. elapsed returns the time
// since some fixed moment, and never decreases.
func New(wall func() time.Time, elapsed func() time.Duration) *Clock {
	c := &Clock{wall: wall, elapsed: elapsed}
	c.base.Store(wall().UnixNano() - int64(elapsed()))
	return c
}

// Now returns the time, in UTC and without a monotonic part.
func (c *Clock) Now() time.Time { return time.Unix(0, c.base.Load()+int64(c.elapsed())).UTC() }

// Off returns how far the wall clock is ahead of c, negative for behind, if that is more
// than two seconds, otherwise zero. It is cheap.
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

// Adopt sets c to the wall clock, if Off is not zero, and returns the step. It must not be
// called concurrently.
func (c *Clock) Adopt() Jump {
	by := c.Off()
	c.base.Add(int64(by))
	return Jump{At: c.Now(), By: by}
}

// Shift returns a time after a step by this much; the zero time stays.
func Shift(t time.Time, by time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(by)
}

// Stale returns by how much a time must be shifted to match the clock after j, or zero. The
// clock returned the time before or after j, shortly before now, and it has not been
// shifted since.
func (j Jump) Stale(t, now time.Time) time.Duration {
	if j.By > 0 && t.Before(j.At) || j.By < 0 && t.Sub(now) > -j.By/2 {
		return j.By
	}
	return 0
}
