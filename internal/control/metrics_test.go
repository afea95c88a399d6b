package control_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

func (w *world) values() map[string]float64 {
	w.t.Helper()
	return testkit.Metrics(w.t, w.metrics)
}

// The lag is that of the slowest watch; one that waits for its VM to change has none.
func TestWatchesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1", "vm-2")
		c := newControl(t, s)
		require.Zero(t, s.values()["watches"])
		accept, done := make(chan struct{}), make(chan error, 1)
		ctx, leave := context.WithCancel(anyone(t))
		go func() {
			done <- c.Watch(ctx, "", "", func(control.Update) error {
				<-accept
				return nil
			})
		}()
		quick, other := watch(t, c, "", ""), watch(t, c, "", "vm-2")
		quick.bare(t)
		other.bare(t)
		synctest.Wait()
		for range 10 {
			s.addEvent(event("vm-1"))
		}
		quick.seqs(t, 10)
		synctest.Wait()
		require.InDelta(t, 3, s.values()["watches"], 0)
		require.InDelta(t, 10, s.values()["watch_lag_changes"], 0)
		for range 5 { // the first update has no change
			accept <- struct{}{}
		}
		synctest.Wait()
		require.InDelta(t, 6, s.values()["watch_lag_changes"], 0)
		close(accept)
		synctest.Wait()
		require.Zero(t, s.values()["watch_lag_changes"])
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Zero(t, s.values()["watch_lag_changes"], "after updates without changes")
		leave()
		require.ErrorIs(t, <-done, context.Canceled)
		require.InDelta(t, 2, s.values()["watches"], 0)
	})
}

// A watch that continues from a cursor is behind until it has sent what it missed.
func TestLagOfACursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1")
		c := newControl(t, s)
		first := watch(t, c, "", "")
		cursor := first.bare(t)
		for range 7 {
			s.addEvent(event("vm-1"))
		}
		release := make(chan struct{})
		ctx, leave := context.WithCancel(anyone(t))
		defer leave()
		done := make(chan error, 1)
		go func() {
			done <- c.Watch(ctx, cursor, "", func(control.Update) error {
				<-release
				return nil
			})
		}()
		synctest.Wait()
		require.InDelta(t, 7, s.values()["watch_lag_changes"], 0)
		close(release)
		synctest.Wait()
		require.Zero(t, s.values()["watch_lag_changes"])
		leave()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// Calls that wait for the end of a command are counted while they do.
func TestWaitsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		done := make(chan error, 1)
		go func() {
			_, err := c.Send(anyone(t), fleet.CommandRequest{ID: "a", VM: "vm", Type: "drain"}, time.Minute)
			done <- err
		}()
		synctest.Wait()
		require.InDelta(t, 1, s.values()["command_waits"], 0)
		require.NoError(t, <-done)
		require.Zero(t, s.values()["command_waits"])
	})
}
