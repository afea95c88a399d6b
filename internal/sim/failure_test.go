package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/sim"
)

// A registration that fails is acked first. The agent then reports the state error, exits,
// and starts again as any restarted agent does; after its last failure it registers.
func TestFailedRegistration_Today(t *testing.T) {
	t.Parallel()
	for name, quirks := range map[string]sim.Quirks{
		"all of them":   {FailedRegistrations: 1, ReopenBurst: 1},
		"the first two": {FirstRegistrationsFail: 2, ReopenBurst: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			cfg := quickKind(c, sim.Today)
			cfg.Quirks = quirks
			cfg.Timing.Restart = 20 * time.Millisecond
			agent, _ := start(t, cfg)
			for _, id := range []string{"c-1", "c-2"} {
				s := c.accept(t)
				for _, state := range []string{"connecting", "ready"} {
					require.Equal(t, state, within(t, c.beats, "a heartbeat over HTTP")["miglet_state"])
				}
				s.command(t, id, "register_runner")
				require.True(t, s.message(t).GetCommandAck().GetSuccess())
				require.Equal(t, "registering_runner", s.message(t).GetHeartbeat().GetMigletState())
				failed := s.message(t).GetHeartbeat()
				require.Equal(t, "error", failed.GetMigletState())
				require.False(t, failed.GetRunnerState().GetConfigured())
				s.silent(t)
			}
			require.EqualValues(t, 2, agent.Snapshot().RegisterFailures)
			s := c.accept(t)
			require.EqualValues(t, 2, agent.Snapshot().Restarts)
			require.Zero(t, agent.Snapshot().TotalErrors(), "the agent's own actions are not errors")
			if quirks.FirstRegistrationsFail > 0 {
				s.registerRunner(t, "c-3")
				require.EqualValues(t, 1, agent.Snapshot().RunnersRegistered)
			}
			require.Zero(t, agent.Snapshot().RegisterRepeats)
		})
	}
}

// systemd waits before it restarts an agent that failed, as after a crash.
func TestFailedRegistration_WaitsForItsRestart(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.FirstRegistrationsFail = 1
	cfg.Timing.Restart = time.Hour
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.heartbeat(t, "error")
	s.gone(t)
	require.Eventually(t, func() bool { return agent.Snapshot().Restarts == 1 }, patience, time.Millisecond)
	require.Empty(t, c.sessions)
}

// A failure that occurs while the stream is down is reported over HTTP.
func TestFailedRegistration_WithoutAStream(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.FirstRegistrationsFail = 1
	cfg.Timing.Register = 200 * time.Millisecond
	cfg.Timing.Backoff, cfg.Timing.Restart = time.Hour, time.Millisecond
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.ack(t)
	s.close(t, nil)
	for state := any(nil); state != "error"; {
		state = within(t, c.beats, "a heartbeat over HTTP")["miglet_state"]
	}
	c.accept(t)
	require.EqualValues(t, 1, agent.Snapshot().Restarts)
}

// A build of December does not report its failure: it disconnects and reconnects.
func TestFailedRegistration_Dec2025(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Dec2025)
	cfg.Quirks.FirstRegistrationsFail = 1
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	require.True(t, s.message(t).GetCommandAck().GetSuccess())
	s.silent(t)
	s = c.accept(t)
	s.command(t, "c-2", "register_runner")
	s.event(t, "runner_registered")
	require.Empty(t, c.beats)
	require.EqualValues(t, 1, agent.Snapshot().RegisterFailures)
}

// A build of November requests a registration again.
func TestFailedRegistration_Nov2025(t *testing.T) {
	t.Parallel()
	c := startController(t)
	c.answers <- registration
	c.answers <- registration
	cfg := quickKind(c, sim.Nov2025)
	cfg.Quirks.FirstRegistrationsFail = 1
	agent, _ := start(t, cfg)
	for _, kind := range []string{"vm_started", "vm_started", "runner_registered"} {
		require.Equal(t, kind, within(t, c.posts, kind)["type"])
	}
	require.EqualValues(t, 1, agent.Snapshot().RegisterFailures)
	require.EqualValues(t, 1, agent.Snapshot().Restarts)
}

// The agent crashes once, idle and registered, and takes its job after it has
// registered again.
func TestRestartRegistered(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.RestartRegistered = 50 * time.Millisecond
	cfg.Timing.JobEvery = time.Millisecond
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	s.silent(t)
	s = c.accept(t)
	s.registerRunner(t, "c-2")
	s.event(t, "job_completed")
	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Restarts)
	require.EqualValues(t, 2, got.RunnersRegistered)
}

// A runner that crashes ends its job without job_completed. The agent reports the exit code
// and is idle as before; the VM is spent.
func TestRunnerCrashes_Today(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.RunnerCrashes = 1
	cfg.Timing.Heartbeat = 5 * time.Millisecond
	cfg.Timing.JobEvery, cfg.Timing.JobLength = time.Millisecond, 20*time.Millisecond
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.event(t, "job_started")
	for {
		message := s.message(t)
		if event := message.GetEvent(); event != nil {
			require.Equal(t, "runner_crashed", event.GetType())
			require.Equal(t, map[string]string{"exit_code": "1"}, event.GetData())
			break
		}
		require.Equal(t, "running", message.GetHeartbeat().GetRunnerState().GetState())
	}
	for range 20 {
		h := s.message(t).GetHeartbeat()
		require.Equal(t, "idle", h.GetMigletState())
		require.Equal(t, "idle", h.GetRunnerState().GetState())
		require.True(t, h.GetRunnerState().GetConfigured())
		require.Nil(t, h.GetCurrentJob())
	}
	require.EqualValues(t, 1, agent.Snapshot().RunnerCrashes)
	require.EqualValues(t, 1, agent.Snapshot().Spent)
}

// Over HTTP the exit code is a number, as in the other reports.
func TestRunnerCrashes_OverHTTP(t *testing.T) {
	t.Parallel()
	c := startController(t)
	c.answers <- registration
	cfg := quickKind(c, sim.Nov2025)
	cfg.Quirks.RunnerCrashes = 1
	cfg.Timing.JobEvery = time.Millisecond
	start(t, cfg)
	for _, kind := range []string{"vm_started", "runner_registered", "job_started"} {
		require.Equal(t, kind, within(t, c.posts, kind)["type"])
	}
	crash := within(t, c.posts, "runner_crashed")
	require.Equal(t, "runner_crashed", crash["type"])
	require.EqualValues(t, 1, crash["exit_code"])
}

// An ideal agent loses its job and takes another.
func TestRunnerCrashes_Ideal(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.RunnerCrashes = 1
	cfg.Timing.JobEvery = time.Millisecond
	start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	for range 2 {
		s.heartbeat(t, "job_running")
		s.event(t, "runner_crashed")
		require.Nil(t, s.heartbeat(t, "idle").GetCurrentJob())
	}
}

// A late heartbeat contains the state and time of when it was created, and takes the route
// that was used then: those from before the stream arrive over HTTP long after the runner
// is registered.
func TestLateHeartbeats(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.LateHeartbeats = 1
	cfg.Timing.Heartbeat = time.Second
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.event(t, "runner_registered")
	registered := time.Now()
	seen := map[any]bool{}
	for range 2 {
		h := within(t, c.beats, "a heartbeat over HTTP")
		stamp, _ := h["timestamp"].(string)
		made, err := time.Parse(time.RFC3339, stamp)
		require.NoError(t, err)
		require.True(t, made.Before(registered))
		require.GreaterOrEqual(t, time.Since(made), cfg.Timing.Heartbeat)
		seen[h["miglet_state"]] = true
	}
	require.Equal(t, map[any]bool{"connecting": true, "ready": true}, seen)
	h := s.heartbeat(t, "registering_runner")
	require.LessOrEqual(t, h.GetTimestamp(), registered.Unix())
	require.GreaterOrEqual(t, time.Now().Unix(), h.GetTimestamp()+1)
	require.GreaterOrEqual(t, agent.Snapshot().LateBeats, int64(3))
}

// A vm_started during a job does not end it, and a register_runner that follows is not the
// controller's fault.
func TestRepeatedStarts(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.RepeatedStarts = 1
	cfg.Timing.JobEvery, cfg.Timing.JobLength = time.Millisecond, 50*time.Millisecond
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	require.Equal(t, "vm_started", within(t, c.posts, "vm_started")["type"])
	s.command(t, "c-2", "register_runner")
	s.event(t, "job_completed")
	require.Eventually(t, func() bool { return agent.Snapshot().RegisterRaces == 1 }, patience, time.Millisecond)
	require.Zero(t, agent.Snapshot().RegisterRepeats)
	require.Empty(t, c.posts)
}

// A clock that starts in 1970 gives every boot the same times, in each kind of report.
func TestClock1970(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Quirks.Clock1970, cfg.Quirks.RepeatedStarts = true, 1
	cfg.Timing.JobEvery, cfg.Timing.JobLength = time.Millisecond, time.Millisecond
	agent, _ := start(t, cfg)
	for _, id := range []string{"c-1", "c-2"} {
		s := c.accept(t)
		for range 2 {
			require.Equal(t, "1970-01-01T00:00:20Z", within(t, c.beats, "a heartbeat over HTTP")["timestamp"])
		}
		s.command(t, id, "register_runner")
		require.InDelta(t, 20, s.heartbeat(t, "registering_runner").GetTimestamp(), 10)
		require.InDelta(t, 20, s.event(t, "job_completed").GetTimestamp(), 10)
		require.Contains(t, within(t, c.posts, "vm_started")["timestamp"], "1970-01-01T00:00:")
		agent.Restart()
		s.gone(t)
	}
}
