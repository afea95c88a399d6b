package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A command is delivered as soon as all those before it have expired, even if the last ones in
// the engine's memory end at once.
func TestWokenAfterExpired(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, fleet.QueueDepth, 2*fleet.QueueDepth + 1} {
		t.Run(fmt.Sprint("acked before the sweep/", n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.send("vm-1", "first")
				a.next()
				short := defaults
				short.TTL = 10*time.Second + 100*time.Millisecond
				for i := range n {
					s.sendWith("vm-1", fmt.Sprintf("b%02d", i), short)
				}
				s.send("vm-1", "late")
				time.Sleep(10*time.Second + 150*time.Millisecond) // fake clock
				a.ack("first", true)
				began := time.Now()
				require.Equal(t, fleet.CommandID("late"), a.next().ID)
				require.LessOrEqual(t, time.Since(began), time.Second)
			})
		})
		t.Run(fmt.Sprint("ended by one sweep/", n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				short := defaults
				short.TTL = defaults.AckTimeout
				for i := range n + 1 {
					s.sendWith("vm-1", fmt.Sprintf("b%02d", i), short)
				}
				s.send("vm-1", "late")
				require.Equal(t, fleet.CommandID("b00"), a.next().ID)
				a.pulse(29, time.Second)
				began := time.Now()
				require.Equal(t, fleet.CommandID("late"), a.next().ID)
				require.LessOrEqual(t, time.Since(began), 2*time.Second)
			})
		})
	}
}

// A token is requested again soon if its absence could not be stored at first.
func TestTokenMissingInAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return fleet.ErrNoToken })
		s.store.down("TokenUnavailable")
		a := s.connect("vm-1")
		time.Sleep(500 * time.Millisecond) // fake clock
		s.store.up("TokenUnavailable")
		s.tokens.on(nil)
		began := time.Now()
		a.next(true)
		require.LessOrEqual(t, time.Since(began), firstRetry)
	})
}
