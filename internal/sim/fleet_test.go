package sim_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/sim"
)

func fleetConfig(c *controller, vms int) sim.FleetConfig {
	return sim.FleetConfig{Agent: quick(c), VMs: vms, VMPrefix: "vm-", StartRate: 10_000}
}

// Every VM has its own TCP connection and id, and Run returns only when all of them have
// ended; goleak finds leaks.
func TestFleet_RunsUntilTheEnd(t *testing.T) {
	t.Parallel()
	c := startController(t)
	fleet, err := sim.NewFleet(fleetConfig(c, 20))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); fleet.Run(ctx) }()
	defer func() { cancel(); <-done }()

	remotes, ids := map[string]bool{}, map[string]bool{}
	for range 20 {
		s, request := c.next(t)
		s.connectAck(t, true)
		s.registerRunner(t, "register-"+request.GetVmId())
		remotes[s.remote], ids[request.GetVmId()] = true, true
	}
	require.Len(t, remotes, 20)
	require.Len(t, ids, 20)
	require.Contains(t, ids, "vm-0001")
	got := fleet.Snapshot()
	require.EqualValues(t, 20, got.Connected)
	require.EqualValues(t, 20, got.Registered)

	cancel()
	within(t, done, "the end of the fleet")
	require.Zero(t, fleet.Snapshot().Connected)
	require.Zero(t, fleet.Snapshot().Registered)
}

// A fleet ends as quickly if the controller is down.
func TestFleet_EndsWithoutController(t *testing.T) {
	t.Parallel()
	agent := sim.DefaultConfig()
	agent.Controller = refusingAddr(t)
	failed := make(chan error, 100)
	agent.Hooks.OnDisconnect = func(_ string, end error) { failed <- end }
	fleet, err := sim.NewFleet(sim.FleetConfig{Agent: agent, VMs: 5, StartRate: 1000})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); fleet.Run(ctx) }()
	for range 5 {
		require.Error(t, within(t, failed, "a failure"))
	}
	cancel()
	within(t, done, "the end of the fleet")
	require.Zero(t, fleet.Snapshot().Connects)
}

func TestFleet_DuplicateIDs(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := fleetConfig(c, 3)
	cfg.DuplicateIDs = 2
	fleet, err := sim.NewFleet(cfg)
	require.NoError(t, err)
	require.Len(t, fleet.Agents(), 5)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { fleet.Run(ctx) })
	defer running.Wait()
	defer cancel()
	seen := map[string]int{}
	for range 5 {
		_, request := c.next(t)
		seen[request.GetVmId()]++
	}
	require.Equal(t, map[string]int{"vm-0001": 2, "vm-0002": 2, "vm-0003": 1}, seen)
}

// A spent VM is replaced by one with a new id, as often as that happens, and no id is used
// twice. The ideal VM is kept.
func TestFleet_ReplacesSpentVMs(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := fleetConfig(c, 3)
	cfg.Agent.Kind = sim.Today
	cfg.Place = func(i int, c *sim.Config) {
		if i == 0 {
			c.Kind = sim.Ideal
		}
	}
	cfg.Agent.Timing.JobEvery = time.Millisecond
	cfg.Agent.Timing.ReplaceAfter = time.Millisecond
	fleet, err := sim.NewFleet(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { fleet.Run(ctx) })
	defer running.Wait()
	defer cancel()

	versions := map[string]string{}
	for range 7 {
		s, request := c.next(t)
		require.NotContains(t, versions, request.GetVmId())
		versions[request.GetVmId()] = request.GetVersion()
		s.connectAck(t, true)
		if request.GetVmId() < "vm-0007" {
			s.command(t, "register-"+request.GetVmId(), "register_runner")
		}
	}
	require.Equal(t, "migletsim", versions["vm-0001"])
	for _, id := range []string{"vm-0002", "vm-0003", "vm-0005", "vm-0006", "vm-0008", "vm-0009"} {
		require.Equal(t, "dev", versions[id], "of %s among %v", id, versions)
	}
	require.NotContains(t, versions, "vm-0004", "the ideal VM was replaced")
	require.EqualValues(t, 4, fleet.Snapshot().Replaced)
	require.Eventually(t, func() bool { return fleet.Snapshot().Connected == 3 }, patience, time.Millisecond)

	cancel()
	running.Wait()
	got := fleet.Snapshot()
	require.Zero(t, got.Connected)
	require.Zero(t, got.Registered)
	require.Zero(t, got.Spent)
	require.Zero(t, got.TotalErrors(), got.Errors)
}

// The start rate keeps a fleet from starting all at once.
func TestFleet_StartRate(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := fleetConfig(c, 3)
	cfg.StartRate = 20
	fleet, err := sim.NewFleet(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	begin := time.Now()
	running.Go(func() { fleet.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for range 3 {
		c.next(t)
	}
	require.GreaterOrEqual(t, time.Since(begin), 100*time.Millisecond)
}

func TestFleetConfig_Validate(t *testing.T) {
	t.Parallel()
	for field, spoil := range map[string]func(*sim.FleetConfig){
		"VMs":                 func(c *sim.FleetConfig) { c.VMs = 0 },
		"StartRate":           func(c *sim.FleetConfig) { c.StartRate = math.NaN() },
		"DuplicateIDs":        func(c *sim.FleetConfig) { c.DuplicateIDs = 4 },
		"Kind":                func(c *sim.FleetConfig) { c.Agent.Kind = "tomorrow" },
		"Controller":          func(c *sim.FleetConfig) { c.Agent.Controller = "localhost" },
		"Timing.Heartbeat":    func(c *sim.FleetConfig) { c.Agent.Timing.Heartbeat = 0 },
		"Timing.Restart":      func(c *sim.FleetConfig) { c.Agent.Timing.Restart = -1 },
		"Timing.ReplaceAfter": func(c *sim.FleetConfig) { c.Agent.Timing.ReplaceAfter = -1 },
		"Quirks.LostAcks":     func(c *sim.FleetConfig) { c.Agent.Quirks.LostAcks = 1.1 },
		"Quirks.NaN":          func(c *sim.FleetConfig) { c.Agent.Quirks.NaN = math.NaN() },
		"Quirks.ReopenBurst":  func(c *sim.FleetConfig) { c.Agent.Quirks.ReopenBurst = 0 },
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			cfg := sim.FleetConfig{Agent: sim.DefaultConfig(), VMs: 3, StartRate: 1}
			require.NoError(t, cfg.Validate())
			spoil(&cfg)
			_, err := sim.NewFleet(cfg)
			var wrong *sim.ConfigError
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, field, wrong.Field)
			require.NotEmpty(t, wrong.Rule)
		})
	}
}

func TestConfig_Controller(t *testing.T) {
	t.Parallel()
	for addr, good := range map[string]bool{
		"localhost:50051":              true,
		"[::1]:50051":                  true,
		"http://localhost:8080":        true,
		"https://controller.example/":  true,
		"https://controller.example/x": true,
		"":                             false,
		"localhost":                    false,
		":50051":                       false,
		"ftp://localhost:21":           false,
		"http://":                      false,
		"http://localhost:99999x":      false,
		"https://user:pw@host":         false,
	} {
		cfg := sim.DefaultConfig()
		cfg.Controller = addr
		if good {
			require.NoError(t, cfg.Validate(), addr)
		} else {
			require.Error(t, cfg.Validate(), addr)
		}
	}
}
