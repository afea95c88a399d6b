package session

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// slowest is how much longer than the previous one a heartbeat over HTTP may take.
const slowest = time.Minute

// beatJob sends a heartbeat with a job that no event has reported.
func (a *agent) beatJob() {
	a.Helper()
	sent := clock().Truncate(time.Second)
	require.NoError(a, a.do(func(s *Session) error {
		return s.Heartbeat(fleet.Heartbeat{
			Origin: fleet.Origin{SentAt: sent}, Status: "idle", Job: &fleet.Job{JobID: "job:"},
			Runner: &fleet.Runner{State: "running", Configured: true},
		}, noFile)
	}))
}

// A heartbeat that was overtaken by a newer one, as over HTTP, changes nothing: neither the
// job nor whether the runner is spent. One that took far longer than the previous one is late
// too.
func TestLateHeartbeatProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.proven("vm-1")
		for _, late := range []struct{ made, took time.Duration }{
			{-5 * time.Second, 0},
			{time.Second, 2 * slowest},
		} {
			made := clock().Add(late.made)
			a.beatJob()
			time.Sleep(late.took) // fake clock
			require.NoError(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{
				Origin: fleet.Origin{VM: "vm-1", SentAt: made}, Status: fleet.StatusReady, RunnerState: "idle",
			}))
			time.Sleep(5 * time.Second) // fake clock
			synctest.Wait()
			v := s.vm("vm-1")
			require.NotNil(t, v.Job, late)
			require.Equal(t, "running", v.Runner.State)
			require.Equal(t, "idle", v.Status)
			require.Zero(t, v.SpentAt)
		}
	})
}

// A vm_started that was sent before the VM was registered is a repetition, whatever showed the
// registration.
func TestRepeatedStartIsNoBoot(t *testing.T) {
	t.Parallel()
	for name, prove := range map[string]func(a *agent){
		"the event":   func(a *agent) { a.timedEvent(fleet.EventRunnerRegistered) },
		"a heartbeat": func(a *agent) { a.timedBeat("idle", true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.connect("vm-1")
				a.next(true)
				time.Sleep(5 * time.Second) // fake clock
				prove(a)
				time.Sleep(3 * time.Minute) // fake clock
				a.quit()
				s.reportStarted("vm-1", clock().Add(-4*time.Minute))
				s.connect("vm-1").requireNothing()
				require.EqualValues(t, 1, s.vm("vm-1").Boot)
				require.Equal(t, 1, s.registrations())
			})
		})
	}
}

// An event about a job takes precedence over heartbeats from before it or from the same
// second, but not over later ones. An older event does not take precedence over it.
func TestEventsOverruleOlderHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.proven("vm-1")
		busy := func() bool {
			time.Sleep(beatWindow) // fake clock
			synctest.Wait()
			return s.vm("vm-1").Job != nil
		}
		a.timedEvent(fleet.EventJobStarted)
		a.timedBeat("idle", true)
		require.True(t, busy(), "a heartbeat of the same second")
		time.Sleep(10 * time.Second) // fake clock
		before := clock()
		time.Sleep(10 * time.Second) // fake clock
		a.timedEvent(fleet.EventJobCompleted)
		a.beatJob()
		require.False(t, busy(), "a heartbeat of the same second")
		spent := s.vm("vm-1").SpentAt
		require.NotZero(t, spent)
		_, _, err := s.ReportEvent(t.Context(), fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", SentAt: before}, Type: fleet.EventJobStarted, Body: json.RawMessage(`{}`),
		})
		require.NoError(t, err)
		require.False(t, busy(), "an event that was overtaken")
		require.Equal(t, spent, s.vm("vm-1").SpentAt)
		time.Sleep(10 * time.Second) // fake clock
		a.beatJob()
		require.True(t, busy(), "a later heartbeat")
	})
}

// A VM whose clock begins in 1970 at each boot is registered in each boot, whichever of its
// first heartbeats arrives, and however long it was up before.
func TestRestartIn1970(t *testing.T) {
	t.Parallel()
	for name, show := range map[string]func(s *system, connect func() *agent, sent time.Time){
		"over HTTP": func(s *system, connect func() *agent, sent time.Time) {
			require.NoError(s, s.ReportHeartbeat(s.Context(), fleet.Heartbeat{
				Origin: fleet.Origin{VM: "vm-1", SentAt: sent}, Status: fleet.StatusReady,
			}))
			connect()
		},
		"on its stream": func(_ *system, connect func() *agent, sent time.Time) {
			connect().timedBeatAt(sent, fleet.StatusReady, false)
		},
		"vm_started": func(s *system, connect func() *agent, sent time.Time) {
			s.reportStarted("vm-1", sent)
			connect()
		},
	} {
		for _, up := range []time.Duration{time.Second, time.Minute, time.Hour} {
			t.Run(name+" after "+up.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSystem(t)
					started := time.Unix(20, 0).UTC()
					var connected time.Time
					connect := func() *agent {
						connected = time.Now()
						return s.connect("vm-1")
					}
					a := connect()
					for boot := range 3 {
						if boot > 0 {
							show(s, func() *agent { a = connect(); return a }, started)
						}
						a.next(true)
						require.LessOrEqual(t, time.Since(connected), withinConnect)
						require.EqualValues(t, boot+1, s.vm("vm-1").Boot)
						a.timedBeatAt(started, fleet.StatusRegistering, false)
						for at := time.Second; at <= up; at += 15 * time.Second {
							a.timedBeatAt(started.Add(at), "idle", true)
							time.Sleep(15 * time.Second) // fake clock
						}
						a.quit()
					}
					require.Equal(t, 3, s.registrations())
				})
			})
		}
	}
}
