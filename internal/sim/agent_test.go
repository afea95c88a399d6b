package sim_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/sim"
)

// The steps of the contract are taken in order, none early and none left out.
func TestAgent_FollowsTheFlow(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))

	s, request := c.next(t)
	require.Equal(t, "vm-1", request.GetVmId())
	require.Equal(t, "pool-1", request.GetPoolId())
	require.Equal(t, "org-1", request.GetOrgId())
	require.Equal(t, "application/grpc", s.headers.Get("Content-Type"))
	s.connectAck(t, true)

	ready := within(t, s.in, "a heartbeat").GetHeartbeat()
	require.Equal(t, "ready", ready.GetMigletState())
	require.False(t, ready.GetRunnerState().GetConfigured())

	s.command(t, "c-1", "register_runner")
	ack := within(t, s.in, "an ack").GetCommandAck()
	require.Equal(t, "c-1", ack.GetCommandId())
	require.True(t, ack.GetSuccess())
	require.Equal(t, "registering_runner", within(t, s.in, "a heartbeat").GetHeartbeat().GetMigletState())
	event := within(t, s.in, "an event").GetEvent()
	require.Equal(t, "runner_registered", event.GetType())
	require.Equal(t, "linux,x64", event.GetData()["labels"])
	idle := within(t, s.in, "a heartbeat").GetHeartbeat()
	require.Equal(t, "idle", idle.GetMigletState())
	require.Equal(t, "idle", idle.GetRunnerState().GetState())
	require.True(t, idle.GetRunnerState().GetConfigured())
	require.Equal(t, []string{"linux", "x64"}, idle.GetRunnerState().GetLabels())

	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Connected)
	require.EqualValues(t, 1, got.Registered)
	require.EqualValues(t, 1, got.RunnersRegistered)
	require.Equal(t, map[string]int64{"register_runner": 1}, got.Commands)
	require.Zero(t, got.TotalErrors())
}

func TestAgent_SendsPeriodicHeartbeats(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.Heartbeat = 10 * time.Millisecond
	start(t, cfg)
	s := c.accept(t)
	for range 4 {
		h := s.heartbeat(t, "ready")
		require.Equal(t, "vm-1", h.GetVmId())
		require.Positive(t, h.GetHealth().GetMemoryTotalBytes())
	}
}

func TestAgent_RunsJobs(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.JobEvery = time.Millisecond
	cfg.Timing.JobLength = 5 * time.Millisecond
	start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")

	id := s.event(t, "job_started").GetData()["job_id"]
	h := s.heartbeat(t, "job_running")
	require.Equal(t, id, h.GetCurrentJob().GetJobId())
	require.Equal(t, "running", h.GetRunnerState().GetState())
	require.Equal(t, id, s.event(t, "job_completed").GetData()["job_id"])
	h = s.heartbeat(t, "idle")
	require.Nil(t, h.GetCurrentJob())
	require.Equal(t, "idle", h.GetRunnerState().GetState())
}

// The agent sends no timeout to the controller, even if its caller has a deadline.
func TestAgent_SendsNoTimeout(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, err := sim.NewAgent(quick(c))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	result := make(chan error, 1)
	go func() { result <- agent.Run(ctx) }()
	s := c.accept(t)
	cancel()
	require.NoError(t, within(t, result, "the end of the agent"))
	require.Empty(t, s.headers.Get("Grpc-Timeout"))
}

// When the controller ends a stream, the agent reconnects immediately, on the same TCP
// connection, and is still registered.
func TestAgent_ReconnectsWhenTheStreamEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{
		"with an error":    connect.NewError(connect.CodeAborted, errors.New("superseded")),
		"without an error": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			agent, _ := start(t, quick(c))
			first := c.accept(t)
			first.registerRunner(t, "c-1")
			first.close(t, end)

			second := c.accept(t)
			require.True(t, second.heartbeat(t, "idle").GetRunnerState().GetConfigured())
			require.Equal(t, first.remote, second.remote)
			kind := "ended"
			if end != nil {
				kind = "aborted"
			}
			require.Equal(t, map[string]int64{kind: 1}, agent.Snapshot().Errors)
		})
	}
}

func TestAgent_DropKeepsTheRegistration(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))
	first := c.accept(t)
	first.registerRunner(t, "c-1")
	agent.Drop()
	first.gone(t)

	second := c.accept(t)
	require.True(t, second.heartbeat(t, "idle").GetRunnerState().GetConfigured())
	require.NotEqual(t, first.remote, second.remote, "a drop closes the TCP connection")
	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Drops)
	require.EqualValues(t, 1, got.RunnersRegistered)
	require.Zero(t, got.TotalErrors(), "the agent's own actions are not errors")
}

// A registration that was in progress when the network dropped completes on the next
// stream.
func TestAgent_DropDuringRegistration(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.Register = 200 * time.Millisecond
	agent, _ := start(t, cfg)
	first := c.accept(t)
	first.command(t, "c-1", "register_runner")
	first.ack(t)
	agent.Drop()

	second := c.accept(t)
	require.False(t, second.heartbeat(t, "registering_runner").GetRunnerState().GetConfigured())
	second.event(t, "runner_registered")
}

func TestAgent_RestartForgetsTheRegistration(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))
	first := c.accept(t)
	first.registerRunner(t, "c-1")
	agent.Restart()
	first.gone(t)

	second := c.accept(t)
	require.False(t, second.heartbeat(t, "ready").GetRunnerState().GetConfigured())
	second.registerRunner(t, "c-2")
	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Restarts)
	require.EqualValues(t, 2, got.RunnersRegistered)
	require.EqualValues(t, 1, got.Registered)
	require.Zero(t, got.RegisterRepeats)
}

// A hot reconnect closes streams before the controller can answer.
func TestAgent_ReopenComesBackAsOftenAsAsked(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.ReopenBurst = 3
	ends := make(chan error, 100)
	cfg.Hooks.OnDisconnect = func(_ string, end error) { ends <- end }
	agent, _ := start(t, cfg)
	first := c.accept(t)
	first.registerRunner(t, "c-1")

	stop := make(chan struct{})
	answered := make(chan struct{})
	go func() { defer close(answered); c.acceptAll(stop) }()
	agent.Reopen()
	for range 3 {
		_ = within(t, ends, "the end of a stream")
	}
	close(stop)
	<-answered
	require.EqualValues(t, 3, agent.Snapshot().Reopens)
	require.Zero(t, agent.Snapshot().TotalErrors())
	require.EqualValues(t, 1, agent.Snapshot().RunnersRegistered)
}

func TestAgent_RefusedGivesUp(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, result := start(t, quick(c))
	s, _ := c.next(t)
	s.connectAck(t, false)
	require.ErrorIs(t, within(t, result, "the end of the agent"), sim.ErrRefused)
	require.EqualValues(t, 1, agent.Snapshot().Refused)
	require.Empty(t, c.sessions)
}

// An agent does not retry in a tight loop while the controller is down.
func TestAgent_WaitsWhenTheDialIsRefused(t *testing.T) {
	t.Parallel()
	cfg := sim.DefaultConfig()
	cfg.VMID, cfg.Controller = "vm-1", refusingAddr(t)
	cfg.Timing.RetryWait = 50 * time.Millisecond
	times := make(chan time.Time, 100)
	cfg.Hooks.OnDisconnect = func(string, error) { times <- time.Now() }
	agent, _ := start(t, cfg)
	first, second := within(t, times, "a failure"), within(t, times, "a failure")
	require.GreaterOrEqual(t, second.Sub(first), 50*time.Millisecond)
	require.Positive(t, agent.Snapshot().Errors["dial"])
}

func TestAgent_SpeaksTLSAndSendsItsToken(t *testing.T) {
	t.Parallel()
	c, handler := newController()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	c.URL = server.URL
	cfg := quick(c)
	cfg.Token = "agent-token"
	transport, ok := server.Client().Transport.(*http.Transport)
	require.True(t, ok)
	cfg.TLS = transport.TLSClientConfig
	start(t, cfg)
	s := c.accept(t)
	require.Equal(t, "Bearer agent-token", s.headers.Get("Authorization"))
	s.heartbeat(t, "ready")
}

func TestAgent_NeverLogsARegistrationToken(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, result := start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	s.command(t, "c-1", "register_runner")
	s.ack(t)
	s.close(t, nil)
	s, _ = c.next(t)
	s.connectAck(t, false)
	require.ErrorIs(t, within(t, result, "the end of the agent"), sim.ErrRefused)
	require.Contains(t, log.String(), "register_runner")
	require.NotContains(t, log.String(), secret)
}
