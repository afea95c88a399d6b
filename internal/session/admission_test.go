package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Sessions get their turns in the order in which they ask, and no more of them than allowed
// have one.
func TestAdmissionIsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const atOnce, all = 8, crowd + 100
		var a admission
		a.open(atOnce)
		type turn struct {
			number int
			leave  func()
		}
		admitted := make(chan turn, all)
		for i := range all {
			go func() {
				if leave, err := a.enter(t.Context()); err == nil {
					admitted <- turn{i, leave}
				}
			}()
			synctest.Wait() // until it has its turn or waits for it
		}
		require.EqualValues(t, all-atOnce, a.waiting.Load())
		for i := range all {
			next := <-admitted
			require.Equal(t, i, next.number)
			switch {
			case i < crowd: // all that have a turn came before the crowd
				require.Len(t, admitted, atOnce-1)
			case i > crowd+atOnce && i < all-atOnce:
				require.Len(t, admitted, atOnce/crowdShare-1, "a crowd leaves room for others")
			}
			next.leave()
			synctest.Wait()
		}
		require.Zero(t, a.waiting.Load())
		require.True(t, a.turns.TryAcquire(atOnce), "all turns were given back")
	})
}

// A wait ends at once, without a turn, when the stream ends or the controller stops.
func TestAdmissionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a admission
		a.open(1)
		leave, err := a.enter(t.Context())
		require.NoError(t, err)
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		enter := func(ctx context.Context) {
			_, err := a.enter(ctx)
			ended <- err
		}
		go enter(ctx)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		go enter(t.Context())
		synctest.Wait()
		a.stop()
		require.ErrorIs(t, <-ended, fleet.ErrStopping)
		require.Zero(t, time.Since(began))
		require.Zero(t, a.waiting.Load())
		leave()
		require.True(t, a.turns.TryAcquire(1), "those that gave up hold no turn")
	})
}

// storm connects more agents than can have a turn, while the store does not answer, and
// returns the results of all of them. The store answers once answer is closed.
func storm(t *testing.T, s *system, agents int) (answer chan struct{}, opened chan error) {
	t.Helper()
	answer, opened = make(chan struct{}), make(chan error, agents)
	s.store.on("OpenSession", func() error {
		<-answer
		return nil
	})
	for i := range agents {
		go func() {
			session, err := s.Open(t.Context(), fleet.Hello{VM: fleet.VMID(fmt.Sprintf("vm-%d", i))}, newTransport())
			if err == nil {
				session.Close(nil)
			}
			opened <- err
		}()
	}
	synctest.Wait()
	return answer, opened
}

// However many agents connect, and however long the store takes: no more than openedAtOnce
// occupy the engine, so that an operator's command does not wait behind them. All are accepted
// in the end.
func TestStormIsDelayedAndNotRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const agents = crowd // no more, so that each takes one turn
		s := newSystem(t)
		answer, opened := storm(t, s, agents)
		require.Equal(t, openedAtOnce, s.store.called("OpenSession"))
		require.EqualValues(t, agents-openedAtOnce, s.admission.waiting.Load())
		time.Sleep(10 * time.Second) // fake clock
		require.Empty(t, opened, "none was refused")
		s.send("vm-0", "a")
		close(answer)
		for range agents {
			require.NoError(t, <-opened)
		}
		require.Zero(t, s.admission.waiting.Load())
	})
}

// The time for which a session waited does not make its agent silent.
func TestWaitIsNotSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		require.True(t, s.admission.turns.TryAcquire(openedAtOnce))
		connected := make(chan *Session, 1)
		go func() {
			session, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, newTransport())
			if err == nil {
				connected <- session
			}
		}()
		time.Sleep(15 * time.Second) // fake clock
		require.EqualValues(t, 1, s.admission.waiting.Load())
		now := clock()
		s.admission.turns.Release(openedAtOnce)
		session := <-connected
		require.False(t, session.currentLiveness().OpenedAt.Before(now))
		session.Close(nil)
	})
}

// A stop ends the waits at once.
func TestStopEndsAStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const agents = 3 * openedAtOnce
		s := newSystem(t)
		answer, opened := storm(t, s, agents)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.EndSessions(ctx)
		for range agents - openedAtOnce {
			require.ErrorIs(t, <-opened, fleet.ErrStopping)
		}
		close(answer)
		for range openedAtOnce {
			require.NoError(t, <-opened)
		}
		s.EndSessions(t.Context())
		s.elapsed(0)
	})
}
