package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/sim"
)

func quickKind(c *controller, kind sim.Kind) sim.Config {
	cfg := quick(c)
	cfg.Kind = kind
	return cfg
}

// message returns the next message of the stream, whatever it is.
func (s *session) message(t *testing.T) *commands.MIGletMessage {
	t.Helper()
	select {
	case message, ok := <-s.in:
		require.True(t, ok, "the agent ended the stream")
		return message
	case <-time.After(patience):
		require.FailNow(t, "nothing arrived")
		return nil
	}
}

// silent fails if the agent sends anything until it has disconnected.
func (s *session) silent(t *testing.T) {
	t.Helper()
	for {
		select {
		case message, ok := <-s.in:
			if !ok {
				return
			}
			require.Fail(t, "the agent sent something", message)
		case <-time.After(patience):
			require.FailNow(t, "the agent is still connected")
		}
	}
}

// The heartbeats of connecting and ready are sent over HTTP, which does not say whether the
// runner is configured. The stream carries none of them, and no vm_started.
func TestToday_StartsOverHTTP(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quickKind(c, sim.Today))
	for _, state := range []string{"connecting", "ready"} {
		h := within(t, c.beats, "a heartbeat over HTTP")
		require.Equal(t, "job_heartbeat", h["type"])
		require.Equal(t, state, h["miglet_state"])
		require.Equal(t, "idle", h["runner_state"])
		require.Equal(t, "vm-1", h["vm_id"])
		require.Equal(t, "vm-1", h["path_vm_id"])
		require.NotContains(t, h, "current_job")
		stamp, _ := h["timestamp"].(string)
		_, err := time.Parse(time.RFC3339, stamp)
		require.NoError(t, err)
	}
	s, request := c.next(t)
	require.Equal(t, "dev", request.GetVersion())
	s.connectAck(t, true)

	s.command(t, "c-1", "drain")
	ack := s.message(t).GetCommandAck()
	require.Equal(t, "c-1", ack.GetCommandId())
	require.False(t, ack.GetSuccess())
	require.Equal(t, "Command type not yet implemented", ack.GetMessage())
	require.Empty(t, c.posts)
	// A post is counted once its answer has been read.
	require.Eventually(t, func() bool { return agent.Snapshot().Posts == 2 }, patience, time.Millisecond)
	require.Zero(t, agent.Snapshot().TotalErrors())
}

func TestToday_Registers(t *testing.T) {
	t.Parallel()
	c := startController(t)
	start(t, quickKind(c, sim.Today))
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	require.True(t, s.message(t).GetCommandAck().GetSuccess())

	h := s.message(t).GetHeartbeat()
	require.Equal(t, "registering_runner", h.GetMigletState())
	require.Equal(t, "idle", h.GetRunnerState().GetState())
	require.False(t, h.GetRunnerState().GetConfigured())

	event := s.message(t).GetEvent()
	require.Equal(t, "runner_registered", event.GetType())
	require.Equal(t, map[string]string{"runner_url": "https://github.example/org", "runner_group": ""}, event.GetData())

	h = s.message(t).GetHeartbeat()
	require.Equal(t, "idle", h.GetMigletState())
	require.True(t, h.GetRunnerState().GetConfigured())
	require.Equal(t, "vm-1", h.GetRunnerState().GetRunnerName())
	require.Equal(t, []string{"linux", "x64"}, h.GetRunnerState().GetLabels())
	require.Positive(t, h.GetHealth().GetDiskUsedBytes())
	require.Greater(t, h.GetHealth().GetDiskTotalBytes(), h.GetHealth().GetDiskUsedBytes())
	require.Zero(t, h.GetHealth().GetDiskUsagePercent())
}

// After register_runner nothing is read: ten commands are buffered, the others are dropped,
// and none is answered, not even on the next stream.
func TestToday_ReadsNoCommandsOnceRegistered(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	taken := make(chan string, 100)
	cfg.Hooks.OnCommand = func(_ string, command *commands.Command) { taken <- command.GetId() }
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-0")
	require.Equal(t, "c-0", within(t, taken, "a command"))
	send := func(s *session, ids ...string) {
		for i, id := range ids {
			kind := []string{"drain", "shutdown", "register_runner"}[i%3]
			s.command(t, id, kind)
			require.Equal(t, id, within(t, taken, "a command"))
		}
	}
	send(s, "c-1", "c-2", "c-3", "c-4", "c-5", "c-6")
	agent.Drop()
	s.silent(t)
	s = c.accept(t)
	send(s, "c-7", "c-8", "c-9", "c-10", "c-11", "c-12")
	agent.Drop()
	s.silent(t)

	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Acks)
	require.EqualValues(t, 10, got.Unread)
	require.EqualValues(t, 2, got.Overflows)
	require.EqualValues(t, 13, got.TotalCommands())
	require.EqualValues(t, 1, got.RunnersRegistered)
	require.EqualValues(t, 4, got.RegisterRepeats)
}

// A restarted agent reads commands again.
func TestToday_ReadsAgainAfterARestart(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quickKind(c, sim.Today))
	boots := func(id string) *session {
		s := c.accept(t)
		for _, state := range []string{"connecting", "ready"} {
			require.Equal(t, state, within(t, c.beats, "a heartbeat over HTTP")["miglet_state"])
		}
		s.registerRunner(t, id)
		return s
	}
	s := boots("c-1")
	agent.Restart()
	s.gone(t)
	boots("c-2")
	require.EqualValues(t, 2, agent.Snapshot().RunnersRegistered)
}

// During its only job the agent is idle and its runner is running; afterwards everything is
// as before, permanently.
func TestToday_TakesOneJob(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Timing.Heartbeat = 5 * time.Millisecond
	cfg.Timing.JobEvery = time.Millisecond
	cfg.Timing.JobLength = 50 * time.Millisecond
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")

	require.Equal(t, map[string]string{"job_id": "job:", "run_id": ""}, s.event(t, "job_started").GetData())
	h := s.heartbeat(t, "idle")
	require.Equal(t, "running", h.GetRunnerState().GetState())
	require.Equal(t, "job:", h.GetCurrentJob().GetJobId())
	require.Equal(t, "running", h.GetCurrentJob().GetStatus())
	require.Equal(t, h.GetTimestamp(), h.GetCurrentJob().GetStartedAt())
	require.Empty(t, h.GetCurrentJob().GetRepository()+h.GetCurrentJob().GetBranch()+h.GetCurrentJob().GetCommit())
	done := s.event(t, "job_completed").GetData()
	require.Len(t, done, 3)
	require.Contains(t, done, "success")

	for range 20 {
		message := s.message(t)
		require.Nil(t, message.GetEvent())
		h := message.GetHeartbeat()
		require.Equal(t, "idle", h.GetMigletState())
		require.Equal(t, "idle", h.GetRunnerState().GetState())
		require.True(t, h.GetRunnerState().GetConfigured())
		require.Nil(t, h.GetCurrentJob())
	}
	require.EqualValues(t, 1, agent.Snapshot().Spent)
}

// A spent VM is deleted: its connection is cut, and it is no longer counted.
func TestToday_IsDeletedOnceSpent(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Timing.JobEvery = time.Millisecond
	cfg.Timing.ReplaceAfter = 100 * time.Millisecond
	agent, result := start(t, cfg)
	s := c.accept(t)
	begin := time.Now()
	s.command(t, "c-1", "register_runner")
	s.event(t, "job_completed")
	require.ErrorIs(t, within(t, result, "the end of the agent"), sim.ErrReplaced)
	require.Greater(t, time.Since(begin), 100*time.Millisecond)
	s.gone(t)
	got := agent.Snapshot()
	require.Zero(t, got.Spent)
	require.Zero(t, got.Registered)
	require.Zero(t, got.Connected)
	require.Zero(t, got.TotalErrors(), got.Errors)
}

// What cannot be sent on the stream is sent over HTTP, and the agent keeps running.
func TestToday_ReportsOverHTTPWithoutAStream(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Timing.Heartbeat = 10 * time.Millisecond
	cfg.Timing.Register = 200 * time.Millisecond
	cfg.Timing.JobEvery, cfg.Timing.JobLength = time.Millisecond, 100*time.Millisecond
	cfg.Timing.Backoff = time.Hour
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.ack(t)
	s.close(t, nil)

	registered := within(t, c.posts, "runner_registered")
	require.Equal(t, "runner_registered", registered["type"])
	require.Equal(t, "https://github.example/org", registered["runner_url"])
	require.Equal(t, []any{"linux", "x64"}, registered["labels"])
	started := within(t, c.posts, "job_started")
	require.Equal(t, "job_started", started["type"])
	require.Equal(t, "job:", started["job_id"])
	for {
		h := within(t, c.beats, "a heartbeat over HTTP")
		if h["runner_state"] == "running" {
			require.Equal(t, "idle", h["miglet_state"])
			job, _ := h["current_job"].(map[string]any)
			require.Equal(t, "job:", job["job_id"])
			break
		}
	}
	completed := within(t, c.posts, "job_completed")
	require.Equal(t, "job_completed", completed["type"])
	require.IsType(t, true, completed["success"])
	require.Empty(t, c.sessions)
	// The agent counts it once the report is answered.
	require.Eventually(t, func() bool { return agent.Snapshot().Spent == 1 }, 10*time.Second, time.Millisecond)
}

// While a stream is open, answered or not, reports are written to it.
func TestToday_ReportsOnAStreamThatIsNotAccepted(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Today)
	cfg.Timing.Heartbeat = 10 * time.Millisecond
	start(t, cfg)
	s, _ := c.next(t)
	s.heartbeat(t, "ready")
}

// A build of December sends nothing until its runner is registered, and then heartbeats
// without a state.
func TestDec2025_SendsHeartbeatsOnlyWhenIdle(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quickKind(c, sim.Dec2025)
	cfg.Timing.Heartbeat = time.Millisecond
	cfg.Timing.Register = 20 * time.Millisecond
	cfg.Timing.JobEvery = time.Millisecond
	cfg.Timing.JobLength = 20 * time.Millisecond
	agent, _ := start(t, cfg)
	s, request := c.next(t)
	require.Equal(t, "dev", request.GetVersion())
	s.connectAck(t, true)
	s.command(t, "c-1", "drain")
	require.False(t, s.message(t).GetCommandAck().GetSuccess())
	s.command(t, "c-2", "register_runner")
	require.True(t, s.message(t).GetCommandAck().GetSuccess())
	require.Equal(t, "runner_registered", s.message(t).GetEvent().GetType())

	s.event(t, "job_started")
	h := s.heartbeat(t, "")
	require.True(t, h.GetRunnerState().GetConfigured())
	require.Equal(t, "running", h.GetRunnerState().GetState())
	s.event(t, "job_completed")
	require.Equal(t, "idle", s.heartbeat(t, "").GetRunnerState().GetState())
	require.Empty(t, c.beats)
	require.Empty(t, c.posts)
	require.Zero(t, agent.Snapshot().Posts)
}

// It could have restarted unnoticed, so a second register_runner is not the controller's
// fault.
func TestDec2025_RepeatedRegistrationIsARace(t *testing.T) {
	t.Parallel()
	c := startController(t)
	taken := make(chan string, 10)
	cfg := quickKind(c, sim.Dec2025)
	cfg.Hooks.OnCommand = func(_ string, command *commands.Command) { taken <- command.GetId() }
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	s.event(t, "runner_registered")
	s.command(t, "c-2", "register_runner")
	for range 2 {
		within(t, taken, "a command")
	}
	require.Eventually(t, func() bool { return agent.Snapshot().Unread == 1 }, patience, time.Millisecond)
	require.Zero(t, agent.Snapshot().RegisterRepeats)
	require.EqualValues(t, 1, agent.Snapshot().RegisterRaces)
}
