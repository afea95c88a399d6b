package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// showWithin is how long package fleet waits for an agent to report its runner, plus a sweep.
const showWithin = time.Second

// A connection loss that drops both the ack and the proof of a registration does not register
// the runner twice: before register_runner is repeated, the agent may report its runner. That
// report, or a second of silence, decides.
func TestRegistrationIsNotRepeatedBlindly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		say      func(a *agent)
		repeated bool
		after    time.Duration
	}{
		"a registered runner":    {func(a *agent) { a.beatRunner(true) }, false, beatWindow},
		"an unregistered runner": {func(a *agent) { a.beatRunner(false) }, true, beatWindow},
		"nothing of the runner":  {func(a *agent) { a.beat("ready") }, true, showWithin},
		"nothing":                {func(*agent) {}, true, showWithin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.connect("vm-1")
				first := a.next()
				a.quit()
				a = s.connect("vm-1")
				synctest.Wait()
				a.requireNothing()
				test.say(a)
				if test.repeated {
					require.Equal(t, first.ID, a.next().ID)
					s.elapsed(test.after)
					return
				}
				s.send("vm-1", "then")
				require.Equal(t, fleet.CommandID("then"), a.next().ID)
				s.elapsed(test.after)
				require.Equal(t, fleet.Succeeded, s.command(first.ID).State)
			})
		})
	}
}

// A report of the runner on the previous session decides nothing on the new one, even if it is
// stored later.
func TestRunnerOfThePreviousSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		first := a.next()
		a.beatRunner(false)
		a.quit()
		require.Equal(t, first.ID, s.connect("vm-1").next().ID)
		s.elapsed(showWithin)
	})
}

// A register_runner that was never sent is sent at once on the next session.
func TestFirstRegistrationIsNotDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error { return fleet.ErrNoToken })
		a := s.connect("vm-1")
		a.requireNothing()
		a.quit()
		s.tokens.on(nil)
		require.Equal(t, 1, s.connect("vm-1").next().Attempts)
		s.elapsed(0)
	})
}
