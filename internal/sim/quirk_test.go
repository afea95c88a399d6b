package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// Recurring quirks happen by themselves.
func TestQuirk_Recurring(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set   func(*sim.Quirks)
		count func(sim.Snapshot) int64
	}{
		"drops": {
			func(q *sim.Quirks) { q.DropEvery = 5 * time.Millisecond },
			func(s sim.Snapshot) int64 { return s.Drops },
		},
		"restarts": {
			func(q *sim.Quirks) { q.RestartEvery = 5 * time.Millisecond },
			func(s sim.Snapshot) int64 { return s.Restarts },
		},
		"reopens": {
			func(q *sim.Quirks) { q.ReopenEvery = 5 * time.Millisecond },
			func(s sim.Snapshot) int64 { return s.Reopens },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			cfg := quick(c)
			test.set(&cfg.Quirks)
			ends := make(chan error, 1000)
			cfg.Hooks.OnDisconnect = func(_ string, end error) { ends <- end }
			agent, _ := start(t, cfg)
			stop := make(chan struct{})
			answered := make(chan struct{})
			go func() { defer close(answered); c.acceptAll(stop) }()
			for range 5 {
				_ = within(t, ends, "the end of a stream")
			}
			close(stop)
			<-answered
			require.GreaterOrEqual(t, test.count(agent.Snapshot()), int64(5))
		})
	}
}

func TestQuirk_HeartbeatFirst(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.HeartbeatFirst = 1
	start(t, cfg)
	s := within(t, c.sessions, "a stream")
	require.NotNil(t, within(t, s.in, "a heartbeat").GetHeartbeat())
	require.NotNil(t, within(t, s.in, "a ConnectRequest").GetConnect())
}

func TestQuirk_Heartbeats(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set   func(*sim.Quirks)
		check func(*testing.T, *commands.Heartbeat)
	}{
		"no health": {
			func(q *sim.Quirks) { q.NoHealth = 1 },
			func(t *testing.T, h *commands.Heartbeat) {
				t.Helper()
				require.Nil(t, h.GetHealth())
			},
		},
		"no runner state": {
			func(q *sim.Quirks) { q.NoRunnerState = 1 },
			func(t *testing.T, h *commands.Heartbeat) {
				t.Helper()
				require.Nil(t, h.GetRunnerState())
			},
		},
		"NaN": {
			func(q *sim.Quirks) { q.NaN = 1 },
			func(t *testing.T, h *commands.Heartbeat) {
				t.Helper()
				require.True(t, math.IsNaN(h.GetHealth().GetCpuUsagePercent()))
				require.True(t, math.IsInf(h.GetHealth().GetMemoryUsagePercent(), 1))
			},
		},
		"foreign id": {
			func(q *sim.Quirks) { q.ForeignIDs = 1 },
			func(t *testing.T, h *commands.Heartbeat) {
				t.Helper()
				require.NotEqual(t, "vm-1", h.GetVmId())
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			cfg := quick(c)
			test.set(&cfg.Quirks)
			start(t, cfg)
			test.check(t, c.accept(t).heartbeat(t, "ready"))
		})
	}
}

// Whatever garbage does to the stream, the agent reconnects and continues.
func TestQuirk_Garbage(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.Heartbeat = time.Millisecond
	cfg.Quirks.Garbage = 1
	ends := make(chan error, 1000)
	cfg.Hooks.OnDisconnect = func(_ string, end error) { ends <- end }
	agent, _ := start(t, cfg)
	for range 3 {
		s := c.accept(t)
		s.gone(t) // an undecodable message ended the receiving side
		s.close(t, nil)
		_ = within(t, ends, "the end of a stream")
	}
	require.GreaterOrEqual(t, agent.Snapshot().Strays, int64(3))
}
