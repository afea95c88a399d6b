package readiness

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// passing is a check that holds.
func passing(name string) Check {
	return Check{name, func(context.Context) error { return nil }}
}

// outcomes returns the reasons by name; empty for a check that passed.
func outcomes(results Results) map[string]string {
	reasons := map[string]string{}
	for _, r := range results {
		reasons[r.Name] = ""
		if r.Err != nil {
			reasons[r.Name] = r.Err.Error()
		}
	}
	return reasons
}

// A check that fails is reported with its reason, and does not affect the others.
func TestEachCheckFailsAlone(t *testing.T) {
	t.Parallel()
	names := []string{"one", "two", "three"}
	for _, failing := range names {
		c := New()
		for _, name := range names {
			c.Add(Check{name, func(context.Context) error {
				if name == failing {
					return errors.New("it is broken")
				}
				return nil
			}})
		}
		results := c.Run(t.Context())
		want := map[string]string{"one": "", "two": "", "three": "", NotDraining: ""}
		want[failing] = "it is broken"
		require.Equal(t, want, outcomes(results))
		require.False(t, results.Ready())
		require.Equal(t, "it is broken", results.Reason())
	}
}

// Results have the order of the checks, with NotDraining last, and each has its time.
func TestResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(passing("one"), Check{"slow", func(context.Context) error {
			time.Sleep(2 * time.Second) // fake clock
			return nil
		}})
		began := time.Now()
		results := c.Run(t.Context())
		require.True(t, results.Ready())
		require.Empty(t, results.Reason())
		require.Equal(t, Results{
			{Name: "one", At: began},
			{Name: "slow", At: began, Took: 2 * time.Second},
			{Name: NotDraining, At: began.Add(2 * time.Second)},
		}, results)
	})
}

// All reasons are given, each of them once.
func TestReason(t *testing.T) {
	t.Parallel()
	broken := func(text string) Result { return Result{Err: errors.New(text)} }
	require.Equal(t, "a; b", Results{broken("a"), {}, broken("b"), broken("a")}.Reason())
}

// A blocked check fails after the timeout, however often it is run; the others are reported as
// ever. It is not called again before it returns.
func TestBlockedCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int64
		c := New(passing("journal"), Check{"store", func(context.Context) error {
			if calls.Add(1) == 1 {
				<-release
			}
			return nil
		}})
		for i, reason := range []string{"store: no result after 3s", "store: no result after 6s", "store: no result after 9s"} {
			began := time.Now()
			results := c.Run(t.Context())
			require.Equal(t, Timeout, time.Since(began))
			require.Equal(t, map[string]string{"journal": "", "store": reason, NotDraining: ""}, outcomes(results))
			require.Equal(t, time.Duration(i+1)*Timeout, results[1].Took)
		}
		require.EqualValues(t, 1, calls.Load())
		close(release)
		synctest.Wait()
		require.True(t, c.Run(t.Context()).Ready())
		require.EqualValues(t, 2, calls.Load())
	})
}

// A check that gives up at the end of its context has no result, like one that does not.
func TestCheckThatEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Check{"store", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		began := time.Now()
		require.Equal(t, "store: no result after 3s", c.Run(t.Context()).Reason())
		require.Equal(t, Timeout, time.Since(began))
	})
}

// A result is never from before the request for it: a caller that finds a call in progress waits
// for the next one, which it shares with others.
func TestResultsAreNew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		c := New(Check{"store", func(context.Context) error {
			n := calls.Add(1)
			time.Sleep(time.Second) // fake clock
			if n > 1 {
				return errors.New("the disk is full")
			}
			return nil
		}})
		first, later := make(chan Results, 1), make(chan Results, 5)
		go func() { first <- c.Run(t.Context()) }()
		time.Sleep(time.Second / 2) // fake clock
		for range cap(later) {
			go func() { later <- c.Run(t.Context()) }()
		}
		require.True(t, (<-first).Ready())
		for range cap(later) {
			require.Equal(t, "the disk is full", (<-later).Reason())
		}
		require.EqualValues(t, 2, calls.Load())
		for range 3 { // without any time in between
			c.Run(t.Context())
		}
		require.EqualValues(t, 5, calls.Load())
	})
}

// The wait for a call in progress counts for the timeout.
func TestWaitForACallCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Check{"store", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		first := make(chan Results, 1)
		go func() { first <- c.Run(t.Context()) }()
		time.Sleep(time.Second) // fake clock
		began := time.Now()
		results := c.Run(t.Context())
		require.Equal(t, Timeout, time.Since(began))
		require.Equal(t, "store: no result after 3s", results.Reason())
		require.Equal(t, Timeout, results[0].Took)
		<-first
		time.Sleep(Timeout) // fake clock
	})
}

// A caller that is gone does not affect others who share its call.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Check{"store", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}})
		gone, leave := context.WithCancel(t.Context())
		first, second := make(chan Results, 1), make(chan Results, 1)
		go func() { first <- c.Run(gone) }()
		go func() { second <- c.Run(t.Context()) }()
		synctest.Wait()
		leave()
		require.ErrorIs(t, (<-first)[0].Err, context.Canceled)
		require.True(t, (<-second).Ready())
	})
}

// Drain makes NotDraining fail at once, with the time that is left.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(passing("store"))
		select {
		case <-c.Draining():
			require.Fail(t, "it is draining")
		default:
		}
		c.Drain(time.Now().Add(12 * time.Second))
		<-c.Draining()
		require.Equal(t, map[string]string{"store": "", NotDraining: "draining: stops in 12s"}, outcomes(c.Run(t.Context())))
		time.Sleep(time.Second / 2) // fake clock
		c.Drain(time.Now().Add(time.Hour))
		require.Equal(t, "draining: stops in 12s", c.Run(t.Context()).Reason(), "rounded up, and not set again")
		time.Sleep(time.Minute) // fake clock
		require.Equal(t, "the controller is stopping", c.Run(t.Context()).Reason())
	})
}

// Close waits for calls, except for blocked ones, and nothing is called afterwards.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ takes, waits time.Duration }{{closeTimeout / 2, closeTimeout / 2}, {time.Hour, closeTimeout}} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			c := New(Check{"store", func(context.Context) error {
				calls.Add(1)
				time.Sleep(test.takes) // fake clock
				return nil
			}})
			gone, leave := context.WithCancel(t.Context())
			leave()
			require.ErrorIs(t, c.Run(gone)[0].Err, context.Canceled)
			began := time.Now()
			c.Close()
			require.Equal(t, test.waits, time.Since(began))
			time.Sleep(test.takes) // fake clock
			require.Equal(t, "the controller is stopping", c.Run(t.Context()).Reason())
			require.EqualValues(t, 1, calls.Load())
		})
	}
}
