package session

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// onePage is a page size larger than any test needs.
const onePage = 1000

// Filters that match everything.
var (
	allCommands store.CommandQuery
	allEvents   store.EventQuery
)

// poll polls for vm-1.
func (s *system) poll() []Lease {
	s.Helper()
	leases, err := s.Poll(s.Context(), "vm-1")
	require.NoError(s, err)
	return leases
}

// A VM that polls gets its commands one at a time: register_runner with a token, once per
// boot, and the following ones when the runner is registered.
func TestPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		leases := s.poll()
		require.Len(t, leases, 1)
		register := leases[0]
		require.Equal(t, fleet.RegisterRunner, register.Command.Type)
		require.Equal(t, secret, register.Params.Strings[fleet.RegistrationTokenParam])
		require.Equal(t, clock().Add(time.Hour), register.TokenExpiresAt)
		require.Empty(t, s.command(register.Command.ID).Params)
		s.send("vm-1", "a", "b")
		require.Empty(t, s.poll())

		s.report("vm-1", fleet.EventRunnerRegistered)
		require.Equal(t, fleet.Succeeded, s.command(register.Command.ID).State)
		leases = s.poll()
		require.Len(t, leases, 1)
		require.Equal(t, fleet.CommandID("a"), leases[0].Command.ID)
		require.Zero(t, leases[0].TokenExpiresAt)
		require.Empty(t, s.poll())
		// Polls are never acked.
		time.Sleep(defaults.AckTimeout + sweepEvery + 1) // fake clock
		require.Equal(t, fleet.CommandID("b"), s.poll()[0].Command.ID)
		require.Equal(t, int64(3), s.Stats().Delivered)
	})
}

// A VM with a live session gets its commands only there; after the session, by polling.
func TestPollDuringASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		register := a.next()
		require.Empty(t, s.poll())
		a.quit()
		leases := s.poll()
		require.Len(t, leases, 1)
		require.Equal(t, register.ID, leases[0].Command.ID)
		s.connect("vm-1").requireNothing()
	})
}

// Only one of several concurrent polls gets the command.
func TestPollsRace(t *testing.T) {
	t.Parallel()
	s := newSystem(t, withoutJournal)
	for _, vm := range []fleet.VMID{"vm-1", "vm-2", "vm-3", "vm-4", "vm-5"} {
		var mu sync.Mutex
		var handed []Lease
		var polls sync.WaitGroup
		for range 4 {
			polls.Go(func() {
				leases, err := s.Poll(t.Context(), vm)
				mu.Lock()
				defer mu.Unlock()
				handed = append(handed, leases...)
				if err != nil {
					t.Error(err)
				}
			})
		}
		polls.Wait()
		require.Len(t, handed, 1)
		require.Equal(t, 1, s.command(handed[0].Command.ID).Attempts)
	}
}

// Without a token the command is not delivered, and waits.
func TestPollWithoutAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return errors.New("out of order") })
		_, err := s.Poll(t.Context(), "vm-1")
		require.ErrorIs(t, err, fleet.ErrNoToken)
		require.Equal(t, fleet.Pending, s.command(s.vm("vm-1").Registration.Command).State)
		_, err = s.Token(t.Context(), "vm-1", "", nil)
		require.ErrorIs(t, err, fleet.ErrNoToken)
		s.tokens.on(nil)
		require.Len(t, s.poll(), 1)
		runner, err := s.Token(t.Context(), "vm-1", "group", []string{"label"})
		require.NoError(t, err)
		require.Equal(t, secret, runner.Token)
		require.Equal(t, "group", runner.Group)
		require.Equal(t, 1, s.log.count("registration token issued"))
	})
}

// Without a token other commands overtake register_runner in polls too.
func TestPollOvertakesAMissingToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return errors.New("out of order") })
		_, err := s.Poll(t.Context(), "vm-1")
		require.ErrorIs(t, err, fleet.ErrNoToken)
		register := s.vm("vm-1").Registration.Command
		s.send("vm-1", "drain")
		leases := s.poll()
		require.Len(t, leases, 1)
		require.Equal(t, fleet.CommandID("drain"), leases[0].Command.ID)
		require.Equal(t, fleet.Pending, s.command(register).State)
		require.Zero(t, s.command(register).Attempts)
		require.Equal(t, "a test's tokens: out of order", s.vm("vm-1").TokenWait.Why)
	})
}

// Over HTTP an agent gets an error when nothing can be stored, and retries.
func TestPollOutage(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RequestRegistration", "State", "Lease"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				s.store.down(method, "RecordEvent")
				_, err := s.Poll(t.Context(), "vm-1")
				require.ErrorIs(t, err, fleet.ErrUnavailable)
				_, _, err = s.ReportEvent(t.Context(), fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error"})
				require.ErrorIs(t, err, fleet.ErrUnavailable)
				s.elapsed(0)
				s.store.up(method)
				require.Len(t, s.poll(), 1)
			})
		})
	}
}

// A report over HTTP is checked like any other, and its own claims about its origin are
// ignored.
func TestReportsOverHTTP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		for _, bad := range []fleet.Event{
			{Type: "error"},
			{Origin: fleet.Origin{VM: "vm-1"}, Type: "no id"},
			{Origin: fleet.Origin{VM: "_state"}, Type: "error"},
		} {
			_, _, err := s.ReportEvent(t.Context(), bad)
			_, ok := errors.AsType[*fleet.FieldError](err)
			require.True(t, ok, "%v", err)
		}
		for _, bad := range []fleet.Heartbeat{{}, {Origin: fleet.Origin{VM: "vm-1"}, Status: "in between"}} {
			_, ok := errors.AsType[*fleet.FieldError](s.ReportHeartbeat(t.Context(), bad))
			require.True(t, ok)
		}
		forged := fleet.Origin{VM: "vm-1", Via: fleet.Stream, Epoch: 7, ReceivedAt: clock().Add(time.Hour)}
		v, e, err := s.ReportEvent(t.Context(), fleet.Event{Origin: forged, Type: "error"})
		require.NoError(t, err)
		require.Equal(t, fleet.VMID("vm-1"), v.ID)
		require.Equal(t, fleet.Origin{VM: "vm-1", Via: fleet.HTTP, ReceivedAt: e.ReceivedAt}, e.Origin)
		require.WithinDuration(t, clock(), e.ReceivedAt, time.Second)
		require.NoError(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{Origin: forged, Status: "idle"}))
		s.Close()
		hs, _, err := s.store.Heartbeats(t.Context(), "vm-1", time.Time{}, 10)
		require.NoError(t, err)
		require.Equal(t, fleet.HTTP, hs[0].Via)
		require.Zero(t, hs[0].Epoch)
	})
}
