// Package readiness owns the checks that decide whether the controller is ready: each has a
// name and a time limit, and is reported separately.
package readiness

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Timeout is how long a check may take.
const Timeout = 3 * time.Second

// NotDraining is the name of the check that fails from Drain on.
const NotDraining = "not_draining"

// Check is one condition of readiness.
type Check struct {
	// Name identifies the check, as a word in lower case.
	Name string
	// Run returns nil if the condition holds, and otherwise the reason, which is shown to
	// anyone who can connect. Its context ends after Timeout. There is one call at a time: while
	// a call does not return, the check fails without further calls.
	Run func(context.Context) error
}

// Result is the outcome of a check.
type Result struct {
	// Name is the name of the check.
	Name string
	// Err is why the check failed; nil if it passed.
	Err error
	// At is when the check began, and Took how long it has taken so far.
	At   time.Time
	Took time.Duration
}

// Results are the results of all checks, in the order in which the checks were added, and then
// that of NotDraining.
type Results []Result

// Ready reports whether all checks passed.
func (r Results) Ready() bool {
	return !slices.ContainsFunc(r, func(result Result) bool { return result.Err != nil })
}

// Reason returns why checks failed; empty if all passed.
func (r Results) Reason() string {
	var reasons []string
	for _, result := range r {
		if result.Err != nil && !slices.Contains(reasons, result.Err.Error()) {
			reasons = append(reasons, result.Err.Error())
		}
	}
	return strings.Join(reasons, "; ")
}

// Failed returns the names of the checks that failed.
func (r Results) Failed() (names []string) {
	for _, result := range r {
		if result.Err != nil {
			names = append(names, result.Name)
		}
	}
	return names
}

// Checks are the checks of one controller. They are safe for concurrent use.
type Checks struct {
	drain drain

	mu      sync.Mutex
	checks  []*check
	closed  bool
	running sync.WaitGroup // nothing is added once closed is set
}

// New returns checks that run these.
func New(checks ...Check) *Checks {
	c := &Checks{drain: newDrain()}
	for _, k := range checks {
		c.Add(k)
	}
	return c
}

// Add adds a check.
func (c *Checks) Add(k Check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks = append(c.checks, &check{Check: k})
}

// Names returns the names of all checks, in the order of Results.
func (c *Checks) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.checks)+1)
	for _, k := range c.checks {
		names = append(names, k.Name)
	}
	return append(names, NotDraining)
}

// Run runs all checks at the same time, and returns the results after Timeout at the latest, or
// when ctx ends. Each result is from a call that began during Run, unless an earlier call has
// not returned. Concurrent callers share these calls.
func (c *Checks) Run(ctx context.Context) Results {
	c.mu.Lock()
	checks := slices.Clone(c.checks)
	c.mu.Unlock()
	results := make(Results, len(checks)+1)
	var all sync.WaitGroup
	for i, k := range checks {
		all.Go(func() { results[i] = c.result(ctx, k) })
	}
	all.Wait()
	now := time.Now()
	results[len(checks)] = Result{Name: NotDraining, Err: c.drain.check(now), At: now}
	return results
}

// closeTimeout is how long Close waits.
const closeTimeout = time.Second

// Close makes all added checks fail from now on, and waits for the calls that are in progress,
// but not for blocked ones: the stop must not depend on them.
func (c *Checks) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		c.running.Wait()
	}()
	select {
	case <-returned:
	case <-time.After(closeTimeout):
	}
}
