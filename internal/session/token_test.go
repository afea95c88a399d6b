package session

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// While no token is available register_runner stays PENDING with the reason at its VM, other
// commands overtake it, and it is sent when there is a token again.
func TestNoToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return errors.New("no such file") })
		s.send("vm-1", "early")
		a := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("early"), a.next(true).ID)
		id := s.vm("vm-1").Registration.Command
		s.send("vm-1", "one", "two")
		require.Equal(t, fleet.CommandID("one"), a.next(true).ID)
		require.Equal(t, fleet.CommandID("two"), a.next(true).ID)
		s.elapsed(0)
		wait := s.vm("vm-1").TokenWait
		require.Equal(t, "a test's tokens: no such file", wait.Why)
		require.Equal(t, clock(), wait.Since)
		changes := s.store.LastChange()
		time.Sleep(10 * time.Minute) // fake clock
		a.requireNothing()
		require.Equal(t, changes, s.store.LastChange(), "it is written only when it changes")
		require.Equal(t, fleet.Pending, s.command(id).State)
		require.Zero(t, s.command(id).Attempts)
		s.tokens.on(nil)
		began := time.Now()
		require.Equal(t, id, a.next(true).ID)
		require.LessOrEqual(t, time.Since(began), lastRetry)
		require.Equal(t, 1, s.command(id).Attempts)
		require.Zero(t, s.vm("vm-1").TokenWait)
	})
}

// A token is requested when its next attempt is due, and not whenever the session is woken:
// neither by changes of the VM, nor by a reason that differs each time. After the clock was
// set back it is requested within a minute, and then as after a first attempt.
func TestTokenTries(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]func(n int64) error{
		"for many reasons": func(n int64) error { return fmt.Errorf("request %d was refused", n) },
		"for one reason":   func(int64) error { return errors.New("refused") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var back atomic.Int64
				s := newSystem(t, func(_ *system, o *Options) {
					o.Clock = func() time.Time { return clock().Add(-time.Duration(back.Load())) }
				})
				var tries atomic.Int64
				s.tokens.on(func() error { return refusal(tries.Add(1)) })
				a := s.connect("vm-1")
				for i := range 60 {
					a.beat(strconv.Itoa(i)) // a change of its VM
					time.Sleep(time.Second) // fake clock
				}
				synctest.Wait()
				require.EqualValues(t, 8, tries.Load(), "at 0, 1, 3, 7, 15, 30, 45 and 60 seconds")
				s.send("vm-1", "other")
				require.Equal(t, fleet.CommandID("other"), a.next(true).ID)
				require.EqualValues(t, 8, tries.Load())
				back.Store(int64(time.Hour))
				time.Sleep(lookAgain) // fake clock
				synctest.Wait()
				require.EqualValues(t, 9, tries.Load())
				time.Sleep(time.Minute + sweepEvery) // fake clock
				synctest.Wait()
				require.EqualValues(t, 9+7, tries.Load(), "at 1, 3, 7, 15, 30, 45 and 60 seconds")
			})
		})
	}
}
