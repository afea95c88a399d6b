package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// of returns the lines with the message.
func (l *lines) of(message string) (found []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// failed connects an agent whose registration fails until the next attempt is delayed.
func (s *system) failed(vm fleet.VMID) *agent {
	s.Helper()
	a := s.connect(vm)
	a.next(false)
	a.next(false)
	a.requireNothing()
	require.Equal(s, fleet.RegFailed, s.vm(vm).Registration.State)
	require.Greater(s, s.vm(vm).Registration.NextAttemptAt, clock().Add(20*time.Second))
	time.Sleep(time.Second) // fake clock
	return a
}

// An attempt that was acked and registers nothing is a failure: it is shown, logged with a
// hint, and retried, first at once and then with growing delays. A registration resets the
// count of failures, of which the last is kept.
func TestFailedRegistrationIsLoggedAndTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		var waits []time.Duration
		for n := 1; n <= 8; n++ {
			asked := time.Now()
			c := a.next()
			waits = append(waits, time.Since(asked))
			a.ack(c.ID, true)
			a.timedBeat(fleet.StatusRegistering, false)
			time.Sleep(2 * time.Second) // fake clock
			a.timedBeat(fleet.StatusError, false)
			time.Sleep(beatWindow) // fake clock
			synctest.Wait()
			lines := s.log.of("registration failed")
			require.Len(t, lines, n)
			line, g := lines[n-1], s.vm("vm-1").Registration
			require.Equal(t, "WARN", line["level"])
			require.Equal(t, "vm-1", line["vm_id"])
			require.Equal(t, string(c.ID), line["command_id"])
			require.Equal(t, "its agent reported the state error", line["reason"])
			require.EqualValues(t, n, line["failures"])
			require.Contains(t, line["hint"], "token expired")
			require.Contains(t, line["hint"], "URL wrong")
			next, err := time.Parse(time.RFC3339, fmt.Sprint(line["next_attempt_at"]))
			require.NoError(t, err)
			require.Equal(t, fleet.Succeeded, s.command(c.ID).State, "the configuration was received")
			require.EqualValues(t, n, g.Failures)
			require.Equal(t, c.ID, g.LastFailure.Command)
			if n > 1 {
				require.Equal(t, fleet.RegFailed, g.State)
				require.WithinDuration(t, g.Next(), next, time.Second)
			}
			a.quit()
			a = s.connect("vm-1")
		}
		require.Less(t, waits[1], withinConnect, "the first failure is retried at once")
		for n, nominal := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute} {
			require.InDelta(t, nominal.Seconds(), waits[n+2].Seconds(), nominal.Seconds()/4+1, "after %d failures", n+2)
		}
		last := s.vm("vm-1").Registration.LastFailure
		a.next(true)
		a.timedEvent(fleet.EventRunnerRegistered)
		synctest.Wait()
		g := s.vm("vm-1").Registration
		require.Equal(t, fleet.Registered, g.State)
		require.Zero(t, g.Failures)
		require.Zero(t, g.NextAttemptAt)
		require.Equal(t, last, g.LastFailure)
	})
}

// The end of an attempt is logged in one line, whatever ended it.
func TestWhyARegistrationFailed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		attempt func(s *system, a *agent)
		after   time.Duration
		reason  string
	}{
		"refused": {func(_ *system, a *agent) { a.next(false) }, 0, "the agent refused it: "},
		"restarted": {func(s *system, a *agent) {
			a.next(true)
			a.quit()
			s.beatHTTP(fleet.StatusConnecting)
		}, beatWindow, "its agent was started again before the runner was registered"},
		"gone": {func(_ *system, a *agent) {
			a.next(true)
			a.quit()
		}, time.Minute, "its session ended, and within a minute nothing showed that its agent was still registering it"},
		"no proof": {func(_ *system, a *agent) { a.next(true) }, fleet.DefaultRegistrationTimeout, "no proof arrived within 5m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.connect("vm-1")
				time.Sleep(time.Second) // fake clock
				test.attempt(s, a)
				synctest.Wait()
				if test.after > 0 {
					time.Sleep(test.after - time.Millisecond) // fake clock
					require.Empty(t, s.log.of("registration failed"), "too early")
					time.Sleep(time.Millisecond + sweepEvery) // fake clock
					synctest.Wait()
				}
				lines := s.log.of("registration failed")
				require.Len(t, lines, 1)
				require.Contains(t, lines[0]["reason"], test.reason)
			})
		})
	}
}

// When all VMs of a fleet fail, as with an expired token, some lines are logged, with the
// number of suppressed ones.
func TestFailedRegistrationsOfAFleet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		for i := range 50 {
			a := s.connect(fleet.VMID(fmt.Sprintf("vm-%d", i)))
			a.next(false)
			a.quit()
		}
		synctest.Wait()
		require.Len(t, s.log.of("registration failed"), loglimit.Lines)
		time.Sleep(loglimit.Period) // fake clock
		s.connect("vm-late").next(false)
		synctest.Wait()
		lines := s.log.of("registration failed")
		require.Len(t, lines, loglimit.Lines+1)
		require.Equal(t, "vm-late", lines[loglimit.Lines]["vm_id"])
		require.EqualValues(t, 50-loglimit.Lines, lines[loglimit.Lines]["suppressed"])
	})
}

// Two VMs with one id that report over HTTP look like one that restarts repeatedly. It is not
// registered for the next minute, which is logged at a limited rate.
func TestContestedVM(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.reportStarted("vm-1", clock())
		for n := range 3 * loglimit.Lines {
			time.Sleep(time.Second) // fake clock
			s.report("vm-1", fleet.EventRunnerRegistered)
			time.Sleep(time.Second / 2) // fake clock
			s.reportStarted("vm-1", clock())
			require.Empty(t, s.registrationsOver(n))
		}
		synctest.Wait()
		lines := s.log.of("VM starts too often: not registered for now")
		require.Len(t, lines, loglimit.Lines)
		require.Equal(t, "WARN", lines[0]["level"])
		require.Equal(t, "vm-1", lines[0]["vm_id"])
		require.Contains(t, lines[0]["hint"], "several VMs may have this id")
		require.NotZero(t, s.vm("vm-1").ContestedAt)
		require.EqualValues(t, 2, s.vm("vm-1").Boot)
	})
}

// registrationsOver polls once after each start, and returns how often it got register_runner.
func (s *system) registrationsOver(starts int) []Lease {
	s.Helper()
	if starts == 0 {
		return nil // this one is a boot
	}
	return s.poll()
}

// A runner that crashes, perhaps repeatedly, is logged as a warning at a limited rate. Its job
// is over, it is offline, and the registration is unchanged.
func TestCrashedRunner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.proven("vm-1")
		before := s.vm("vm-1").Registration
		for range 2 * loglimit.Lines {
			a.timedEvent(fleet.EventJobStarted)
			synctest.Wait()
			require.NotNil(t, s.vm("vm-1").Job)
			time.Sleep(time.Second) // fake clock
			a.timedEvent(fleet.EventRunnerCrashed)
			synctest.Wait()
			v := s.vm("vm-1")
			require.Nil(t, v.Job)
			require.Equal(t, "offline", v.Runner.State)
			require.Equal(t, before, v.Registration)
			require.Equal(t, clock(), v.CrashedAt)
		}
		lines := s.log.of("runner crashed")
		require.Len(t, lines, loglimit.Lines)
		require.Equal(t, "WARN", lines[0]["level"])
		require.Equal(t, "vm-1", lines[0]["vm_id"])
		a.timedBeat("idle", true)
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Equal(t, "offline", s.vm("vm-1").Runner.State, "its agent does not notice it")
		a.timedEvent(fleet.EventRunnerCrashed)
		synctest.Wait()
		lines = s.log.of("runner crashed")
		require.Len(t, lines, loglimit.Lines+1)
		require.EqualValues(t, loglimit.Lines, lines[loglimit.Lines]["suppressed"])
	})
}

// The restart of an agent is logged at info level, with its boot.
func TestStartedAgainIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.proven("vm-1").quit()
		require.Empty(t, s.log.of("agent was started again"))
		a := s.connect("vm-1")
		a.timedBeat(fleet.StatusReady, false)
		a.next()
		synctest.Wait()
		lines := s.log.of("agent was started again")
		require.Len(t, lines, 1)
		require.Equal(t, "INFO", lines[0]["level"])
		require.Equal(t, "vm-1", lines[0]["vm_id"])
		require.EqualValues(t, 2, lines[0]["boot"])
	})
}

// A changed token makes VMs whose registration failed retry at once: connected ones now,
// others when they connect or poll. One that fails with the new token waits again.
func TestChangedTokenEndsTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.failed("vm-live"), s.failed("vm-live-too")
		for _, vm := range []fleet.VMID{"vm-1", "vm-session"} {
			s.failed(vm).quit()
		}
		before := s.proven("vm-registered")
		s.began = time.Now()
		s.RunnersConfigured(t.Context())
		require.Equal(t, fleet.RegisterRunner, a.next(false).Type)
		b.next()
		s.elapsed(0)
		before.requireNothing()
		require.Equal(t, 2, s.registrations(), "it is not connected")
		a.requireNothing()
		require.Greater(t, s.vm("vm-live").Registration.NextAttemptAt, clock(), "it failed with the new one too")

		require.Len(t, s.poll(), 1)
		require.Equal(t, fleet.RegisterRunner, s.connect("vm-session").next().Type)
		s.elapsed(0)
		require.Equal(t, 3, s.registrations())
	})
}

// Without a new token the delay holds, also for a VM that connects or polls.
func TestTheDelayHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.RunnersConfigured(t.Context())
		time.Sleep(time.Second) // fake clock
		s.failed("vm-1").quit()
		at := s.vm("vm-1").Registration.NextAttemptAt
		require.Empty(t, s.poll())
		a := s.connect("vm-1")
		a.requireNothing()
		time.Sleep(at.Sub(clock()) - 1) // fake clock
		a.requireNothing()
		a.next()
		require.WithinDuration(t, at, clock(), sweepEvery)
	})
}

// A restarted controller may have other options: failed registrations are retried at once.
func TestRestartedControllerEndsTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.failed("vm-1").quit()
		s.Close()
		s.start()
		s.connect("vm-1").next()
		s.elapsed(0)
	})
}

// A changed token during a store outage is not missed: connected VMs use it when they
// reconnect, and the failure is logged.
func TestChangedTokenInAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.failed("vm-1")
		s.store.down("State")
		s.RunnersConfigured(t.Context())
		s.store.up("State")
		a.requireNothing()
		require.Equal(t, 1, s.log.count("registration not retried at once"))
		a.quit()
		s.began = time.Now()
		s.connect("vm-1").next()
		s.elapsed(0)
	})
}

// An operator's register_runner is the next attempt, and made at once.
func TestOperatorEndsTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.failed("vm-1")
		c, err := fleet.CommandRequest{ID: "theirs", VM: "vm-1", Type: fleet.RegisterRunner}.Accept(defaults, clock())
		require.NoError(t, err)
		s.began = time.Now()
		_, err = s.store.Accept(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, fleet.CommandID("theirs"), a.next(true).ID)
		s.elapsed(0)
		g := s.vm("vm-1").Registration
		require.Equal(t, fleet.Requested, g.State)
		require.Equal(t, fleet.CommandID("theirs"), g.Command)
		a.timedEvent(fleet.EventRunnerRegistered)
		time.Sleep(time.Hour) // fake clock
		a.requireNothing()
		require.Equal(t, 3, s.registrations(), "the delayed attempt is not made in addition")
		require.Zero(t, s.vm("vm-1").Registration.Failures)
	})
}

// A register_runner that expires on a live session while no token is available is
// requested again there, and sent once there is a token.
func TestExpiredWithoutATokenIsRequestedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return errors.New("no such file") })
		a := s.connect("vm-1")
		first := s.vm("vm-1").Registration.Command
		time.Sleep(defaults.TTL + sweepEvery) // fake clock
		a.requireNothing()
		require.Equal(t, fleet.Expired, s.command(first).State)
		g := s.vm("vm-1").Registration
		require.Equal(t, fleet.Requested, g.State)
		require.NotEqual(t, first, g.Command)
		require.Zero(t, g.Failures, "it was not delivered")

		s.tokens.on(nil)
		began := time.Now()
		require.Equal(t, g.Command, a.next(true).ID)
		require.LessOrEqual(t, time.Since(began), lastRetry)
		require.Equal(t, 2, s.registrations())
		require.EqualValues(t, 1, s.vm("vm-1").Epoch)
		require.Zero(t, s.log.count("registration failed"))
	})
}
