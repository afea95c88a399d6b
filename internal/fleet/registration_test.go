package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each row of the table in docs/registration.md: what is observed, and what it means.
func TestObservations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		seen    func(*story) *story
		state   RegistrationState
		boot    int64
		ids     int // of register_runner
		notices []NoticeKind
	}{
		"configured runner": {(*story).registered, Registered, 1, 1, nil},
		"drop, then configured": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, "idle", true).after(time.Hour)
		}, Registered, 1, 1, nil},
		"drop, and silence of less than a probe's delay": {func(s *story) *story { return s.registered().drop().connect().after(29 * time.Second) }, Registered, 1, 1, nil},
		"restart, seen over HTTP before the stream":      {func(s *story) *story { return s.registered().drop().beat(HTTP, StatusConnecting, false).connect() }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart, ready over HTTP":                       {func(s *story) *story { return s.registered().drop().beat(HTTP, StatusReady, false).connect() }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart, seen over HTTP, offline":               {func(s *story) *story { return s.registered().drop().beat(HTTP, StatusReady, false) }, Unregistered, 2, 1, []NoticeKind{NoticeBooted}},
		"restart, seen over HTTP after the stream":       {func(s *story) *story { return s.registered().drop().connect().beat(HTTP, StatusReady, false) }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart, all of its states": {func(s *story) *story {
			return s.registered().drop().beat(HTTP, StatusInitializing, false).beat(HTTP, StatusConnecting, false).connect().beat(HTTP, StatusReady, false).beat(Stream, StatusReady, false)
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart, seen on the stream":             {func(s *story) *story { return s.registered().drop().connect().beat(Stream, StatusReady, false) }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart of an agent that names no state": {func(s *story) *story { return s.registered().drop().connect().beat(Stream, "", false) }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart with a clock that was set back": {func(s *story) *story {
			s.registered().drop()
			s.clock = -time.Hour
			return s.beat(HTTP, StatusConnecting, false).beat(HTTP, StatusReady, false).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"over HTTP, while the session is live": {func(s *story) *story { return s.registered().beat(HTTP, StatusReady, false).after(time.Hour) }, Registered, 1, 1, nil},
		"which the next session takes up":      {func(s *story) *story { return s.registered().beat(HTTP, StatusReady, false).connect() }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"unless the live session shows its runner": {func(s *story) *story {
			return s.registered().beat(HTTP, StatusReady, false).beat(Stream, "idle", true).connect()
		}, Registered, 1, 1, nil},
		"late, on the same session": {func(s *story) *story { return s.registered().beat(Stream, StatusReady, false).after(time.Minute) }, Registered, 1, 1, nil},
		"late, over HTTP": {func(s *story) *story {
			return s.registered().drop().late(HTTP, 20*time.Second).connect()
		}, Registered, 1, 1, nil},
		"late, on the next session": {func(s *story) *story {
			return s.registered().drop().connect().late(Stream, 20*time.Second)
		}, Registered, 1, 1, nil},
		"agent that is always ready": {func(s *story) *story {
			s.connect().beat(Stream, StatusReady, false).ack(true)
			s.input(EventReceived{Event{Origin: s.origin(Stream), Type: EventRunnerRegistered}})
			return s.beat(Stream, StatusReady, false).drop().connect().beat(Stream, StatusReady, false)
		}, Registered, 1, 1, nil},
		"gives its runner up as it goes": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, StatusShuttingDown, false)
		}, Registered, 1, 1, nil},

		"attempt: proof": {(*story).registering, Requested, 1, 1, nil},
		"attempt: drop, still registering": {func(s *story) *story {
			return s.registering().drop().connect().beat(Stream, StatusRegistering, false).after(2 * time.Minute)
		}, Requested, 1, 1, nil},
		"attempt: drop, then the proof":      {func(s *story) *story { return s.registering().drop().connect().event(Stream, EventRunnerRegistered) }, Registered, 1, 1, nil},
		"attempt: drop, the proof over HTTP": {func(s *story) *story { return s.registering().drop().event(HTTP, EventRunnerRegistered) }, Registered, 1, 1, nil},
		"attempt: restart":                   {func(s *story) *story { return s.registering().drop().beat(HTTP, StatusConnecting, false) }, RegFailed, 2, 1, []NoticeKind{NoticeRegistrationFailed, NoticeBooted}},
		"attempt: restart, retried":          {func(s *story) *story { return s.registering().drop().beat(HTTP, StatusConnecting, false).connect() }, Requested, 2, 2, []NoticeKind{NoticeRegistrationFailed, NoticeBooted}},
		"attempt: error": {func(s *story) *story {
			return s.registering().beat(Stream, StatusError, false).after(30 * time.Second)
		}, RegFailed, 1, 1, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: error, then its next session":   {func(s *story) *story { return s.registering().beat(Stream, StatusError, false).drop().connect() }, Requested, 1, 2, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: error, and it stays":            {func(s *story) *story { return s.registering().beat(Stream, StatusError, false).after(time.Minute) }, Requested, 1, 2, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: error over HTTP":                {func(s *story) *story { return s.registering().drop().beat(HTTP, StatusError, false) }, RegFailed, 1, 1, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: late ready on the same session": {func(s *story) *story { return s.registering().beat(Stream, StatusReady, false).after(time.Minute) }, Requested, 1, 1, nil},
		"attempt: late ready over HTTP": {func(s *story) *story {
			return s.registering().late(HTTP, 5*time.Second).after(time.Minute)
		}, Requested, 1, 1, nil},
		"attempt: nothing after its session": {func(s *story) *story { return s.registering().drop().after(time.Minute) }, RegFailed, 1, 1, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: nothing within the grace":  {func(s *story) *story { return s.registering().drop().connect().after(50 * time.Second) }, Requested, 1, 1, nil},
		"attempt: no proof in time":          {func(s *story) *story { return s.registering().after(DefaultRegistrationTimeout - 2*time.Second) }, Requested, 1, 1, nil},
		"attempt: no proof, too late":        {func(s *story) *story { return s.registering().after(DefaultRegistrationTimeout) }, Requested, 1, 2, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: refused":                   {func(s *story) *story { return s.connect().ack(false) }, Requested, 1, 2, []NoticeKind{NoticeRegistrationFailed}},
		"attempt: a late proof": {func(s *story) *story {
			return s.registering().drop().after(2*time.Minute).connect().event(Stream, EventRunnerRegistered)
		}, Registered, 1, 2, []NoticeKind{NoticeRegistrationFailed}},

		"crash right after the proof": {func(s *story) *story {
			return s.registered().event(Stream, EventRunnerCrashed).drop().beat(HTTP, StatusConnecting, false).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeRunnerCrashed, NoticeRegistrationFailed, NoticeBooted}},
		"crash right after the proof, twice": {func(s *story) *story {
			s.registered().event(Stream, EventRunnerCrashed).drop().beat(HTTP, StatusConnecting, false).connect().ack(true)
			return s.event(Stream, EventRunnerRegistered).event(Stream, EventRunnerCrashed).drop().beat(HTTP, StatusConnecting, false).connect()
		}, RegFailed, 3, 2, []NoticeKind{
			NoticeRunnerCrashed, NoticeRegistrationFailed, NoticeBooted, NoticeRunnerCrashed, NoticeRegistrationFailed, NoticeBooted,
		}},
		"crash some time after the proof": {func(s *story) *story {
			return s.registered().after(2*time.Minute).event(Stream, EventRunnerCrashed).drop().beat(HTTP, StatusConnecting, false).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeRunnerCrashed, NoticeBooted}},

		"attempt: a job starts": {func(s *story) *story { return s.registering().event(Stream, EventJobStarted).after(6 * time.Minute) }, Registered, 1, 1, nil},
		"attempt: pending as a job starts": {func(s *story) *story {
			return s.registered().drop().event(HTTP, EventVMStarted).connect().event(Stream, EventJobStarted)
		}, Registered, 2, 2, []NoticeKind{NoticeBooted}},
		"attempt: idle over HTTP": {func(s *story) *story {
			return s.registering().drop().beat(HTTP, "idle", false).after(90 * time.Second)
		}, Requested, 1, 1, nil},
		"attempt: the controller was down": {func(s *story) *story {
			s.registering().now = s.now.Add(10 * time.Minute)
			s.input(ControllerRestarted{VM: "vm"})
			return s.after(time.Second)
		}, Requested, 1, 1, nil},
		"delay: an operator's is adopted": {func(s *story) *story {
			s.registering().drop().beat(HTTP, StatusConnecting, false).connect().ack(true).beat(Stream, StatusRegistering, false)
			s.operator("op", RegisterRunner).drop().beat(HTTP, StatusConnecting, false).connect().ack(true)
			return s.after(time.Minute)
		}, Requested, 3, 2, []NoticeKind{NoticeRegistrationFailed, NoticeBooted, NoticeRegistrationFailed, NoticeBooted}},
		"on its way: boot states": {func(s *story) *story {
			return s.connect().beat(HTTP, StatusConnecting, false).beat(Stream, StatusReady, false).beat(HTTP, StatusReady, false)
		}, Requested, 1, 1, nil},
		"on its way: no answer": {func(s *story) *story {
			s.connect().deliver()
			return s.after(time.Minute)
		}, Requested, 1, 2, []NoticeKind{NoticeRegistrationFailed}},
		"on its way: no token until its deadline": {func(s *story) *story {
			s.connect().input(TokenUnavailable{"vm", "none"})
			return s.after(time.Hour)
		}, Requested, 1, 2, nil},
		"on its way: no token, and no session": {func(s *story) *story {
			s.connect().input(TokenUnavailable{"vm", "none"})
			return s.drop().after(time.Hour)
		}, Unregistered, 1, 1, nil},
		"cancelled: not tried again": {func(s *story) *story { return s.connect().cancel("r1").after(24 * time.Hour) }, RegFailed, 1, 1, nil},
		"delay: another token": {func(s *story) *story {
			s.newer().newer().input(RunnersConfigured{"vm", s.now.Add(1)})
			return s
		}, Requested, 3, 3, []NoticeKind{NoticeRegistrationFailed, NoticeBooted, NoticeRegistrationFailed, NoticeBooted}},
		"delay: the token before": {func(s *story) *story {
			s.newer().newer().input(RunnersConfigured{"vm", t0})
			return s
		}, RegFailed, 3, 2, []NoticeKind{NoticeRegistrationFailed, NoticeBooted, NoticeRegistrationFailed, NoticeBooted}},
		"delay: over": {func(s *story) *story { return s.newer().newer().after(38 * time.Second) }, Requested, 3, 3, []NoticeKind{
			NoticeRegistrationFailed, NoticeBooted, NoticeRegistrationFailed, NoticeBooted,
		}},
		"on its way: ready on the next session": {func(s *story) *story {
			return s.connect().drop().connect().beat(Stream, StatusReady, false)
		}, Requested, 1, 1, nil},
		"on its way: another a minute later, at the earliest": {func(s *story) *story {
			s.rules.Defaults.TTL = 10 * time.Second
			return s.connect().after(50 * time.Second)
		}, Unregistered, 1, 1, nil},
		"on its way: another a minute later": {func(s *story) *story {
			s.rules.Defaults.TTL = 10 * time.Second
			return s.connect().after(61 * time.Second)
		}, Requested, 1, 2, nil},
		"attempt: late states, two in a row": {func(s *story) *story {
			return s.registering().drop().late(HTTP, 9*time.Second).late(HTTP, 8*time.Second)
		}, Requested, 1, 1, nil},
		"restart, connecting on the stream": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, StatusConnecting, false)
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"restart, initializing on the stream": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, StatusInitializing, false)
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"gives its runner up as it drains": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, StatusDraining, false)
		}, Registered, 1, 1, nil},
		"without its runner in a job": {func(s *story) *story {
			return s.registered().drop().connect().beat(Stream, StatusJobRunning, false)
		}, Registered, 1, 1, nil},
		"late, sent before the end of its job": {func(s *story) *story {
			s.registered().after(time.Minute).event(Stream, EventJobCompleted).drop().late(HTTP, 5*time.Second)
			return s.connect()
		}, Registered, 1, 1, nil},
		"vm_started after a later state": {func(s *story) *story {
			return s.event(HTTP, EventVMStarted).beat(HTTP, StatusRegistering, false).event(HTTP, EventVMStarted)
		}, Unregistered, 2, 0, []NoticeKind{NoticeBooted}},
		"vm_started after a job": {func(s *story) *story {
			return s.event(HTTP, EventVMStarted).event(HTTP, EventJobStarted).event(HTTP, EventVMStarted)
		}, Unregistered, 2, 0, []NoticeKind{NoticeBooted}},
		"contested: not for a minute": {func(s *story) *story { return s.contested().after(58 * time.Second).connect() }, Unregistered, 3, 0, []NoticeKind{
			NoticeBooted, NoticeContested, NoticeBooted,
		}},
		"contested: after a minute": {func(s *story) *story { return s.contested().after(57 * time.Second).connect().after(5 * time.Second) }, Requested, 3, 1, []NoticeKind{
			NoticeBooted, NoticeContested, NoticeBooted,
		}},
		"delay: ready on its session": {func(s *story) *story {
			s.newer().newer().operator("d", "drain").ackID("d", false)
			return s.after(10*time.Second).beat(Stream, StatusReady, false)
		}, RegFailed, 3, 2, []NoticeKind{NoticeRegistrationFailed, NoticeBooted, NoticeRegistrationFailed, NoticeBooted}},
		"cancelled: not by a drop": {func(s *story) *story {
			s.registered().drop().beat(HTTP, StatusConnecting, false).connect().cancel("r2").operator("d", "drain").ackID("d", false)
			return s.drop().connect().beat(Stream, StatusReady, false)
		}, RegFailed, 2, 2, []NoticeKind{NoticeBooted}},
		"cancelled: by a restart": {func(s *story) *story {
			return s.connect().beat(Stream, StatusReady, false).cancel("r1").drop().beat(HTTP, StatusConnecting, false).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"answers to vm_started, in a loop": {func(s *story) *story {
			for range 4 {
				s.started().after(8 * time.Second)
			}
			return s
		}, RegFailed, 2, 2, []NoticeKind{NoticeRegistrationFailed, NoticeRegistrationFailed}},
		"two restarts within a minute, polling": {func(s *story) *story {
			s.event(HTTP, EventVMStarted).event(HTTP, EventRunnerRegistered).after(time.Hour)
			s.event(HTTP, EventVMStarted).event(HTTP, EventRunnerRegistered).after(20*time.Second).event(HTTP, EventVMStarted)
			s.after(10 * time.Minute).input(Polled{"vm"})
			return s
		}, Requested, 3, 1, []NoticeKind{NoticeBooted, NoticeContested, NoticeBooted}},
		"restart with a clock that is decades behind": {func(s *story) *story {
			s.registered().drop().clock = -40 * 365 * 24 * time.Hour
			return s.beat(HTTP, StatusReady, false).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"silence of an agent that reads commands": {func(s *story) *story {
			return s.registered().operator("d", "drain").ackID("d", true).drop().connect().after(time.Hour)
		}, Registered, 1, 1, nil},
		"silence, with an operator's own": {func(s *story) *story {
			s.registered().drop().connect().operator("op", RegisterRunner).deliver()
			return s.after(31 * time.Second)
		}, Registered, 1, 1, nil},
		"silence, without a token until the deadline": {func(s *story) *story {
			s.registered().drop().connect().after(30 * time.Second).input(TokenUnavailable{"vm", "none"})
			return s.after(time.Hour + 30*time.Second)
		}, Registered, 1, 3, nil},

		"silence":          {func(s *story) *story { return s.registered().drop().connect().after(30 * time.Second) }, Registered, 1, 2, nil},
		"silence, acked":   {func(s *story) *story { return s.registered().drop().connect().after(30 * time.Second).ack(true) }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"silence, refused": {func(s *story) *story { return s.registered().drop().connect().after(30 * time.Second).ack(false) }, Requested, 2, 3, []NoticeKind{NoticeBooted, NoticeRegistrationFailed}},
		"silence, no answer": {func(s *story) *story {
			s.registered().drop().connect().after(30 * time.Second)
			s.deliver()
			return s.after(time.Hour)
		}, Registered, 1, 2, nil},
		"silence, then its runner": {func(s *story) *story {
			s.registered().drop().connect().after(30 * time.Second)
			s.deliver()
			return s.beat(Stream, "idle", true).after(time.Hour)
		}, Registered, 1, 2, nil},
		"silence, and another drop": {func(s *story) *story {
			return s.registered().drop().connect().after(30 * time.Second).drop().connect().after(20 * time.Second)
		}, Registered, 1, 2, nil},
		"silence during a job": {func(s *story) *story {
			return s.registered().event(Stream, EventJobStarted).drop().connect().after(24 * time.Hour)
		}, Registered, 1, 1, nil},

		"vm_started, the first": {func(s *story) *story { return s.event(HTTP, EventVMStarted).connect() }, Requested, 1, 1, nil},
		"vm_started, again and again": {func(s *story) *story {
			return s.event(HTTP, EventVMStarted).event(HTTP, EventVMStarted).connect().event(Stream, EventVMStarted).event(HTTP, EventVMStarted)
		}, Requested, 1, 1, nil},
		"vm_started after the proof":    {func(s *story) *story { return s.registered().drop().event(HTTP, EventVMStarted).connect() }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"vm_started, live":              {func(s *story) *story { return s.registered().event(HTTP, EventVMStarted).after(time.Hour) }, Registered, 1, 1, nil},
		"vm_started, live, then newer":  {func(s *story) *story { return s.registered().event(HTTP, EventVMStarted).connect() }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"vm_started on a newer session": {func(s *story) *story { return s.registered().drop().connect().event(Stream, EventVMStarted) }, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"vm_started on the same":        {func(s *story) *story { return s.registered().event(Stream, EventVMStarted) }, Registered, 1, 1, nil},
		"vm_started in 1970 each time": {func(s *story) *story {
			s.clock = -(56 * 365 * 24 * time.Hour)
			s.connect().ack(true).event(Stream, EventRunnerRegistered)
			s.clock -= time.Minute
			return s.drop().event(HTTP, EventVMStarted).connect()
		}, Requested, 2, 2, []NoticeKind{NoticeBooted}},
		"an older vm_started again": {func(s *story) *story {
			s.registered().drop()
			o := s.origin(HTTP)
			o.SentAt = t0.Truncate(time.Second)
			s.input(EventReceived{Event{Origin: o, Type: EventVMStarted}})
			return s.connect()
		}, Registered, 1, 1, nil},
		"vm_started during a job": {func(s *story) *story {
			return s.registered().event(Stream, EventJobStarted).drop().event(HTTP, EventVMStarted)
		}, Registered, 1, 1, nil},
		"two clones over HTTP": {func(s *story) *story {
			s.event(HTTP, EventVMStarted)
			for range 3 {
				s.event(HTTP, EventRunnerRegistered).event(HTTP, EventVMStarted)
			}
			s.input(Polled{"vm"})
			return s
		}, Registered, 2, 0, []NoticeKind{NoticeBooted, NoticeContested, NoticeContested}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			test.seen(s)
			require.Equal(t, test.state, s.state.VM.Registration.State)
			require.Equal(t, test.boot, s.state.VM.Boot, "boot")
			require.Equal(t, test.ids, s.ids, "register_runner")
			require.Equal(t, test.notices, s.notices)
		})
	}
}

// A boot state that arrives over HTTP during a live session does not end the session's job,
// and a job that continues does not make its runner a persistent one.
func TestJobOutlivesLateStates(t *testing.T) {
	t.Parallel()
	s := newStory(t).registered().event(Stream, EventJobStarted).after(5*time.Second).beat(HTTP, StatusReady, false)
	require.NotNil(t, s.state.VM.Job)
	h := Heartbeat{Origin: s.origin(Stream), Status: "idle", Runner: &Runner{Configured: true, State: "running"}, Job: &Job{JobID: "job:"}}
	s.input(HeartbeatReceived{&h})
	require.Zero(t, s.state.VM.SpentAt)
	require.False(t, s.state.VM.Persistent)
	s.event(Stream, EventJobCompleted)
	require.Nil(t, s.state.VM.Job)
	require.Equal(t, s.now, s.state.VM.SpentAt)
}

// A report that was received before a start and is stored after it does not become the
// state of the new boot.
func TestStateBeforeTheStart(t *testing.T) {
	t.Parallel()
	s := newStory(t).registered().drop()
	h := Heartbeat{Origin: s.origin(HTTP), Status: "idle"}
	s.event(HTTP, EventVMStarted).input(HeartbeatReceived{&h})
	require.Empty(t, s.state.VM.Status)
}
