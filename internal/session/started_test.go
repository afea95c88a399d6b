package session

import (
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

func tokenInVMStarted(_ *system, o *Options) { o.TokenInVMStarted = true }

// started reports vm_started over HTTP, as sent at this time, and returns the lease in the
// response.
func (s *system) started(vm fleet.VMID, sentAt time.Time) *Lease {
	s.Helper()
	o, err := s.AnswerStarted(s.Context(), s.reportStarted(vm, sentAt))
	require.NoError(s, err)
	return o
}

// reportStarted is started without a response.
func (s *system) reportStarted(vm fleet.VMID, sentAt time.Time) fleet.VM {
	s.Helper()
	v, _, err := s.ReportEvent(s.Context(), fleet.Event{
		Origin: fleet.Origin{VM: vm, SentAt: sentAt}, Type: fleet.EventVMStarted, Body: json.RawMessage(`{}`),
	})
	require.NoError(s, err)
	return v
}

// The response to vm_started delivers register_runner with a token; no poll of that boot gets
// it again, the registration ends it, and a new boot gets another.
func TestAnswerStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted)
		s.send("vm-1", "before")
		o := s.started("vm-1", clock())
		require.Equal(t, fleet.RegisterRunner, o.Command.Type)
		require.Equal(t, secret, o.Params.Strings[fleet.RegistrationTokenParam])
		require.NotEmpty(t, o.Params.Strings["runner_url"])
		require.NotEmpty(t, o.Params.List)
		require.Equal(t, clock().Add(time.Hour), o.TokenExpiresAt)
		kept := s.command(o.Command.ID)
		require.Empty(t, kept.Params)
		require.Equal(t, fleet.Delivered, kept.State)
		require.Equal(t, fleet.HTTP, kept.Last.Via)
		require.Empty(t, s.poll())
		require.EqualValues(t, 1, s.Stats().Delivered)

		s.report("vm-1", fleet.EventRunnerRegistered)
		require.Equal(t, fleet.Succeeded, s.command(o.Command.ID).State)
		require.Equal(t, fleet.Registered, s.vm("vm-1").Registration.State)
		require.Equal(t, fleet.CommandID("before"), s.poll()[0].Command.ID)

		time.Sleep(time.Minute) // fake clock
		again := s.started("vm-1", clock())
		require.NotEqual(t, o.Command.ID, again.Command.ID)
		require.EqualValues(t, 2, s.vm("vm-1").Boot)
	})
}

// An agent that repeats its vm_started has not received the response; one that is registered,
// has a session, or has polled needs none.
func TestAnswerStartedOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted)
		sent := clock()
		first := s.started("vm-1", sent)
		require.Equal(t, first.Command.ID, s.started("vm-1", sent).Command.ID)
		require.Equal(t, 2, s.command(first.Command.ID).Attempts)
		s.report("vm-1", fleet.EventRunnerRegistered)
		c, err := fleet.CommandRequest{ID: "again", VM: "vm-1", Type: fleet.RegisterRunner}.Accept(defaults, clock())
		require.NoError(t, err)
		_, err = s.store.Accept(t.Context(), c)
		require.NoError(t, err)
		require.Nil(t, s.started("vm-1", sent), "registered")

		s.reportStarted("vm-2", sent)
		leases, err := s.Poll(t.Context(), "vm-2")
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.Nil(t, s.started("vm-2", sent), "a poll received it")

		s.connect("vm-3").next()
		require.Nil(t, s.started("vm-3", sent), "it has a session")
	})
}

// Agents that open a stream ignore the response. They get the command on the stream, once.
func TestStreamAfterTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted)
		o := s.started("vm-1", clock())
		a := s.connect("vm-1")
		c := a.next()
		require.Equal(t, o.Command.ID, c.ID)
		require.Equal(t, 2, c.Attempts)
		s.elapsed(0)
		require.Empty(t, s.poll())
		a.ack(c.ID, true)
		a.event(fleet.EventRunnerRegistered)
		a.requireNothing()
		a.quit()
		s.connect("vm-1").requireNothing()
		require.Equal(t, fleet.Succeeded, s.command(o.Command.ID).State)
	})
}

// An agent whose stream opens only after the response counts as lost is registered
// nevertheless.
func TestStreamLongAfterTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted)
		o := s.started("vm-1", clock())
		time.Sleep(10 * time.Minute) // fake clock
		require.Equal(t, fleet.TimedOut, s.command(o.Command.ID).State)
		require.Equal(t, fleet.RegisterRunner, s.connect("vm-1").next().Type)
	})
}

// Without a token the response delivers nothing, which is logged, and the command waits; it is
// delivered as soon as there is a token.
func TestAnswerStartedWithoutAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted)
		s.tokens.on(func() error { return errors.New("no such file") })
		sent := clock()
		require.Nil(t, s.started("vm-1", sent))
		require.Equal(t, 1, s.log.count("vm_started answered without a registration token"))
		require.Equal(t, fleet.Pending, s.command(s.vm("vm-1").Registration.Command).State)
		require.Equal(t, "a test's tokens: no such file", s.vm("vm-1").TokenWait.Why)
		s.tokens.on(nil)
		require.NotNil(t, s.started("vm-1", sent))
		s.tokens.on(func() error { return errors.New("no such file") })
		for range 2 * loglimit.Lines {
			require.Nil(t, s.started("vm-1", sent), "again")
		}
		require.Equal(t, loglimit.Lines, s.log.count("vm_started answered without a registration token"))
	})
}

// While nothing can be stored the agent gets an error, and retries.
func TestAnswerStartedOutage(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RequestRegistration", "State", "Lease"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, tokenInVMStarted)
				sent := clock()
				s.store.down(method)
				_, err := s.AnswerStarted(t.Context(), fleet.VM{ID: "vm-1"})
				require.ErrorIs(t, err, fleet.ErrUnavailable)
				s.store.up(method)
				require.NotNil(t, s.started("vm-1", sent))
			})
		})
	}
}

// If the option is off, vm_started has only its effects as an event: no command is created,
// and no token is requested.
func TestAnswerStartedIsOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { t.Error("asked for a token"); return fleet.ErrNoToken })
		require.Nil(t, s.started("vm-1", clock()))
		require.Empty(t, s.vm("vm-1").Registration.Command)
		s.tokens.on(nil)
	})
}

// A Lease that is logged by mistake would show its token: none is logged.
func TestAnswerIsNotLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, tokenInVMStarted, func(s *system, o *Options) {
			o.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		o := s.started("vm-1", clock())
		s.Close()
		require.NotEmpty(t, s.log.about(string(o.Command.ID)))
		require.NotContains(t, s.log.String(), secret)
		require.NotContains(t, s.log.String(), o.TokenExpiresAt.Format("2006-01-02T15:04"))
	})
}
