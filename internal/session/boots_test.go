package session

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// withinConnect is how soon after it connects a restarted agent is registered again.
const withinConnect = 2 * time.Second

// The shortest and the longest time between the connect of a silent agent and its probe.
const (
	probeAfter  = 30 * time.Second
	probeLatest = 2 * time.Minute
)

// timedBeat sends a heartbeat with the agent's time, in whole seconds as on a stream.
func (a *agent) timedBeat(status string, configured bool) {
	a.Helper()
	a.timedBeatAt(clock().Truncate(time.Second), status, configured)
}

func (a *agent) timedBeatAt(sent time.Time, status string, configured bool) {
	a.Helper()
	require.NoError(a, a.do(func(s *Session) error {
		return s.Heartbeat(fleet.Heartbeat{
			Origin: fleet.Origin{SentAt: sent}, Status: status, Runner: &fleet.Runner{State: "idle", Configured: configured},
		}, noFile)
	}))
}

// timedEvent sends an event with the agent's time.
func (a *agent) timedEvent(kind string) {
	a.Helper()
	sent := clock().Truncate(time.Second)
	require.NoError(a, a.do(func(s *Session) error {
		return s.Event(fleet.Event{Origin: fleet.Origin{SentAt: sent}, Type: kind, Body: json.RawMessage(`{}`)})
	}))
}

// beatHTTP reports a state of vm-1 over HTTP, which does not include the runner.
func (s *system) beatHTTP(status string) {
	s.Helper()
	require.NoError(s, s.ReportHeartbeat(s.Context(), fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm-1", SentAt: clock()}, Status: status,
	}))
}

// proven connects an agent and makes it register its runner, which takes some seconds.
func (s *system) proven(vm fleet.VMID) *agent {
	s.Helper()
	a := s.connect(vm)
	c := a.next()
	require.Equal(s, fleet.RegisterRunner, c.Type)
	a.ack(c.ID, true)
	a.timedBeat(fleet.StatusRegistering, false)
	time.Sleep(5 * time.Second) // fake clock
	a.timedEvent(fleet.EventRunnerRegistered)
	a.timedBeat("idle", true)
	time.Sleep(5 * time.Second) // fake clock
	synctest.Wait()
	require.Equal(s, fleet.Registered, s.vm(vm).Registration.State)
	return a
}

// registrations returns how many register_runner there were for vm-1.
func (s *system) registrations() int {
	s.Helper()
	q := allCommands
	q.VM, q.Type = "vm-1", fleet.RegisterRunner
	all, _, err := s.store.Commands(s.Context(), q, onePage)
	require.NoError(s, err)
	return len(all)
}

// The first heartbeats of a restarted agent arrive over HTTP, at about the time of its
// ConnectRequest: in either order it gets exactly one register_runner, within two seconds of
// the connect. It may send nothing on its stream for a whole interval.
func TestRestartSeenOverHTTP(t *testing.T) {
	t.Parallel()
	report := func(states ...string) func(*system) {
		return func(s *system) {
			for _, state := range states {
				s.beatHTTP(state)
			}
		}
	}
	stored := func(first func(*system)) func(*system) {
		return func(s *system) {
			first(s)
			time.Sleep(time.Second) // fake clock
		}
	}
	none := func(*system) {}
	for name, test := range map[string]struct {
		live          bool // the previous session is
		before, after func(*system)
	}{
		"long before":                       {before: stored(report(fleet.StatusConnecting, fleet.StatusReady)), after: none},
		"just before, and not stored yet":   {before: report(fleet.StatusConnecting, fleet.StatusReady), after: none},
		"one before and one after":          {before: report(fleet.StatusConnecting), after: report(fleet.StatusReady)},
		"just after":                        {before: none, after: report(fleet.StatusConnecting, fleet.StatusReady)},
		"a second after":                    {before: none, after: stored(report(fleet.StatusConnecting, fleet.StatusReady))},
		"in the wrong order":                {before: none, after: report(fleet.StatusReady, fleet.StatusConnecting)},
		"vm_started before":                 {before: func(s *system) { s.reportStarted("vm-1", clock()) }, after: none},
		"vm_started after":                  {before: none, after: func(s *system) { s.reportStarted("vm-1", clock()) }},
		"before the old session is over":    {live: true, before: stored(report(fleet.StatusConnecting, fleet.StatusReady)), after: none},
		"just before the old one is over":   {live: true, before: report(fleet.StatusConnecting, fleet.StatusReady), after: none},
		"as it takes over from the old one": {live: true, before: none, after: report(fleet.StatusConnecting, fleet.StatusReady)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.proven("vm-1")
				for range 4 {
					a.timedBeat("idle", true)
					time.Sleep(15 * time.Second) // fake clock
				}
				if !test.live {
					a.quit()
				}
				require.Equal(t, test.live, s.vm("vm-1").Connected)
				test.before(s)
				connected := time.Now()
				a = s.connect("vm-1")
				test.after(s)
				again := a.next()
				require.LessOrEqual(t, time.Since(connected), withinConnect)
				require.Equal(t, fleet.RegisterRunner, again.Type)
				require.EqualValues(t, 2, s.vm("vm-1").Boot)

				a.ack(again.ID, true)
				a.timedBeat(fleet.StatusRegistering, false)
				time.Sleep(5 * time.Second) // fake clock
				a.timedEvent(fleet.EventRunnerRegistered)
				a.timedBeat("idle", true)
				time.Sleep(10 * time.Second) // fake clock
				a.requireNothing()
				v := s.vm("vm-1")
				require.Equal(t, fleet.Registered, v.Registration.State)
				require.EqualValues(t, 2, v.Boot)
				require.Equal(t, 2, s.registrations())
				require.Equal(t, 1, s.log.count("agent was started again"))
			})
		})
	}
}

// While its session is live, no report over HTTP registers a VM again: neither a late
// heartbeat nor one of a clone.
func TestLiveSessionIsNotRestartedOverHTTP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.proven("vm-1")
		s.beatHTTP(fleet.StatusConnecting)
		s.beatHTTP(fleet.StatusReady)
		s.reportStarted("vm-1", clock())
		for range 10 {
			time.Sleep(15 * time.Second) // fake clock
			a.timedBeat("idle", true)
		}
		a.requireNothing()
		require.EqualValues(t, 1, s.vm("vm-1").Boot)
		a.quit()
		a = s.connect("vm-1")
		a.timedBeat("idle", true)
		time.Sleep(10 * time.Second) // fake clock
		a.requireNothing()
		require.Equal(t, 1, s.registrations(), "its runner was reported since")
	})
}

// An agent that is silent after it has connected is probed. The probe does not change the VM;
// its ack shows that the agent was restarted, since a registered one reads no commands.
func TestSilentRestartIsProbed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		intervals []time.Duration // of its heartbeats
		delay     time.Duration
	}{
		"unknown":  {nil, probeAfter},
		"short":    {[]time.Duration{5 * time.Second}, probeAfter},
		"long":     {[]time.Duration{40 * time.Second}, 80 * time.Second},
		"too long": {[]time.Duration{40 * time.Second, 100 * time.Second}, probeLatest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.proven("vm-1")
				a.timedBeat("idle", true)
				for _, interval := range test.intervals {
					time.Sleep(interval) // fake clock
					a.timedBeat("idle", true)
				}
				time.Sleep(beatWindow) // fake clock
				a.quit()
				time.Sleep(time.Minute) // fake clock
				connected := time.Now()
				a = s.connect("vm-1")
				probe := a.next()
				require.GreaterOrEqual(t, time.Since(connected), test.delay)
				require.LessOrEqual(t, time.Since(connected), test.delay+sweepEvery)
				require.Equal(t, fleet.RegisterRunner, probe.Type)
				v := s.vm("vm-1")
				require.Equal(t, fleet.Registered, v.Registration.State)
				require.EqualValues(t, 1, v.Boot)
				require.Zero(t, s.log.count("agent was started again"))

				a.ack(probe.ID, true)
				synctest.Wait()
				v = s.vm("vm-1")
				require.Equal(t, fleet.Requested, v.Registration.State)
				require.Equal(t, probe.ID, v.Registration.Command)
				require.EqualValues(t, 2, v.Boot)
				require.Equal(t, 1, s.log.count("agent was started again"))
				a.timedEvent(fleet.EventRunnerRegistered)
				time.Sleep(10 * time.Minute) // fake clock
				a.requireNothing()
				require.Equal(t, fleet.Registered, s.vm("vm-1").Registration.State)
				require.Equal(t, 2, s.registrations())
				require.Zero(t, s.log.count("registration failed"))
			})
		})
	}
}

// A probe without an ack proves nothing: no failure, no boot, and no other probe on the same
// session. The same holds for one that can no longer be sent.
func TestUnansweredProbe(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(a *agent){
		"silent":            func(*agent) {},
		"events, no runner": func(a *agent) { a.timedEvent("something") },
		"its runner, late":  func(a *agent) { a.timedBeat("idle", true) },
		"gone":              func(a *agent) { a.quit() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				s.proven("vm-1").quit()
				a := s.connect("vm-1")
				probe := a.next()
				time.Sleep(time.Second) // fake clock
				then(a)
				time.Sleep(2 * defaults.TTL) // fake clock
				a.requireNothing()
				require.True(t, s.command(probe.ID).State.Terminal())
				v := s.vm("vm-1")
				require.Equal(t, fleet.Registered, v.Registration.State)
				require.Zero(t, v.Registration.Failures)
				require.Zero(t, v.Registration.LastFailure)
				require.EqualValues(t, 1, v.Boot)
				require.Equal(t, 2, s.registrations())
				require.Zero(t, s.log.count("registration failed"))
				require.Zero(t, s.log.count("agent was started again"))
			})
		})
	}
}

// An agent is not probed during a job, however long it is silent, but after it.
func TestProbeWaitsForTheJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.proven("vm-1")
		a.timedEvent(fleet.EventJobStarted)
		a.quit()
		a = s.connect("vm-1")
		time.Sleep(5 * time.Hour) // fake clock
		a.requireNothing()
		require.NotNil(t, s.vm("vm-1").Job)
		require.Equal(t, 1, s.registrations())
		a.timedEvent(fleet.EventJobCompleted)
		time.Sleep(time.Hour) // fake clock
		a.requireNothing()
		require.Equal(t, 1, s.registrations(), "the end of the job shows that its runner is registered")
	})
}

// A registered agent whose network drops repeatedly gets no second register_runner: never if
// it sends heartbeats, and otherwise not before the probe.
func TestDropsNeverRegisterTwice(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]func(a *agent){
		"heartbeats of its runner": func(a *agent) {
			a.timedBeat("idle", true)
			time.Sleep(5 * time.Minute) // fake clock
		},
		"heartbeats without a state": func(a *agent) {
			time.Sleep(15 * time.Second) // fake clock
			a.timedBeat("", true)
			time.Sleep(5 * time.Minute) // fake clock
		},
		"a job":          func(a *agent) { a.timedEvent(fleet.EventJobStarted); time.Sleep(5 * time.Minute) }, // fake clock
		"no heartbeats":  func(*agent) { time.Sleep(probeAfter - time.Second) },                               // fake clock
		"gone at once":   func(*agent) {},
		"late heartbeat": func(a *agent) { a.lateBeat(fleet.StatusReady); time.Sleep(10 * time.Second) }, // fake clock
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.proven("vm-1")
				for range 20 {
					a.quit()
					time.Sleep(time.Second) // fake clock
					a = s.connect("vm-1")
					live(a)
				}
				a.requireNothing()
				require.Equal(t, 1, s.registrations())
				require.EqualValues(t, 1, s.vm("vm-1").Boot)
				require.Equal(t, fleet.Registered, s.vm("vm-1").Registration.State)
			})
		})
	}
}

// lateBeat sends a heartbeat that was made before the runner was registered.
func (a *agent) lateBeat(status string) {
	a.Helper()
	sent := a.vm("vm-1").EvidenceSentAt.Add(-time.Second)
	require.NoError(a, a.do(func(s *Session) error {
		return s.Heartbeat(fleet.Heartbeat{
			Origin: fleet.Origin{SentAt: sent}, Status: status, Runner: &fleet.Runner{},
		}, noFile)
	}))
}

// A probe that is in flight when its session ends is not sent on the next one, which shows
// itself whether the runner is still registered.
func TestProbeEndsWithItsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.proven("vm-1").quit()
		a := s.connect("vm-1")
		probe := a.next()
		a.quit()
		a = s.connect("vm-1")
		time.Sleep(probeAfter - time.Second) // fake clock
		a.requireNothing()
		require.Equal(t, fleet.Cancelled, s.command(probe.ID).State)
		require.Equal(t, fleet.Registered, s.vm("vm-1").Registration.State)
		require.NotEqual(t, probe.ID, a.next().ID, "still silent")
	})
}
