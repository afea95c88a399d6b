package sim_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// quickDemo is a demonstration that runs fifty times as fast.
func quickDemo(c *controller, vms int) sim.FleetConfig {
	const faster = 50
	cfg := sim.Demo(sim.DefaultConfig(), vms)
	cfg.Agent.Controller = c.URL
	place := cfg.Place
	cfg.Place = func(i int, c *sim.Config) {
		place(i, c)
		for _, d := range []*time.Duration{
			&c.Timing.Register, &c.Timing.JobEvery, &c.Timing.JobLength,
			&c.Timing.Restart, &c.Timing.ReplaceAfter, &c.Quirks.RestartRegistered,
		} {
			*d /= faster
		}
	}
	return cfg
}

// happenings are the boots, registrations, failures and jobs of each VM, in order.
type happenings struct {
	mu sync.Mutex
	of map[string][]string
}

func (h *happenings) add(vm, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of[vm] = append(h.of[vm], what)
}

func (h *happenings) get(vm string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.of[vm]...)
}

// watch runs a controller that registers every runner, and records what happens.
func (h *happenings) watch(ctx context.Context, c *controller) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.beats:
		case s := <-c.sessions:
			sessions.Go(func() { h.serve(s) })
		}
	}
}

func (h *happenings) serve(s *session) {
	var vm string
	for message := range s.in {
		switch {
		case message.GetConnect() != nil:
			vm = message.GetConnect().GetVmId()
			h.add(vm, "connected")
			s.answer(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
				ConnectAck: &commands.ConnectAck{Accepted: true},
			}})
			s.answer(&commands.ControllerMessage{Message: &commands.ControllerMessage_Command{Command: &commands.Command{
				Id: "register", Type: "register_runner",
				StringParams: map[string]string{"registration_token": secret, "runner_url": "https://github.example/org"},
			}}})
		case message.GetEvent() != nil:
			h.add(vm, message.GetEvent().GetType())
		case message.GetHeartbeat().GetMigletState() == "error":
			h.add(vm, "error")
		}
	}
}

// answer sends a message unless the stream is over.
func (s *session) answer(message *commands.ControllerMessage) {
	select {
	case s.out <- message:
	case <-s.over:
	}
}

// The demonstration shows what its legend says, in that order, and the VMs that replace
// others behave like those.
func TestDemo(t *testing.T) {
	t.Parallel()
	c := startController(t)
	fleet, err := sim.NewFleet(quickDemo(c, 5))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	h := &happenings{of: map[string][]string{}}
	var running sync.WaitGroup
	running.Go(func() { fleet.Run(ctx) })
	running.Go(func() { h.watch(ctx, c) })
	defer running.Wait()
	defer cancel()

	ordinary := []string{"connected", "runner_registered", "job_started", "job_completed"}
	failing := append([]string{"connected", "error"}, ordinary...)
	restarting := append([]string{"connected", "runner_registered"}, ordinary...)
	for vm, want := range map[string][]string{
		"sim-vm-0002": ordinary, "sim-vm-0003": ordinary, "sim-vm-0004": failing, "sim-vm-0005": restarting,
		"sim-vm-0007": ordinary, "sim-vm-0008": ordinary, "sim-vm-0009": failing, "sim-vm-0010": restarting,
	} {
		require.Eventually(t, func() bool { return len(h.get(vm)) >= len(want) }, 4*patience, time.Millisecond, vm)
		require.Equal(t, want, h.get(vm), vm)
	}
	require.NotContains(t, h.get("sim-vm-0001"), "error")
	require.Empty(t, h.get("sim-vm-0006"), "the first VM is not replaced")
	require.Zero(t, fleet.Snapshot().RegisterRepeats)
}

// A small demonstration leaves out the rarest cases.
func TestDemoLegend(t *testing.T) {
	t.Parallel()
	const first, failing, restarting, all = "sim-vm-0001 obeys", "sim-vm-0004 fails", "sim-vm-0005 restarts", "all but the first"
	for vms, want := range map[int][]string{
		1: {first}, 2: {first, all}, 3: {first, all}, 4: {first, failing, all},
		5: {first, failing, restarting, all}, 1000: {first, failing, restarting, all},
	} {
		legend := sim.DemoLegend(vms)
		require.Len(t, legend, len(want), vms)
		for i, line := range legend {
			require.Contains(t, line, want[i])
		}
	}
}
