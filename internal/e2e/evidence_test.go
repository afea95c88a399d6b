package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/sim"
)

const regFailed = migcontrollerv1.RegistrationState_REGISTRATION_STATE_FAILED

// withinConnect is how soon after it connects a restarted agent is registered again, on a
// busy machine. A probe would be sent after 30 s, and a heartbeat after an hour.
const withinConnect = 10 * time.Second

// simulated is a simulated agent of kind Today, unless changed, with what a test waits for.
type simulated struct {
	*sim.Agent
	vm        string
	connects  chan time.Time
	registers chan time.Time // the register_runner that it reads
	changes   *watcher       // changes of its VM, from the first
}

// simulate runs an agent until the test ends. Apart from state changes it reports nothing
// during a test.
func (c *controller) simulate(t *testing.T, change ...func(*sim.Config)) *simulated {
	t.Helper()
	s := &simulated{vm: newVM(), connects: make(chan time.Time, 100), registers: make(chan time.Time, 100)}
	cfg := sim.DefaultConfig()
	cfg.Controller, cfg.VMID = c.grpcAddr, s.vm
	cfg.Timing = sim.Timing{
		Heartbeat: time.Hour, Register: 50 * time.Millisecond, Restart: 50 * time.Millisecond,
		RetryWait: 10 * time.Millisecond, Ping: 10 * time.Second, ProofGrace: time.Second,
	}
	cfg.Hooks.OnConnect = func(string) { s.connects <- time.Now() }
	cfg.Hooks.OnCommand = func(_ string, c *commands.Command) {
		if c.GetType() == "register_runner" {
			s.registers <- time.Now()
		}
	}
	for _, f := range change {
		f(&cfg)
	}
	s.changes = c.watch(t, "", s.vm)
	s.changes.next()
	a, err := sim.NewAgent(cfg)
	require.NoError(t, err)
	s.Agent = a
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	c.awaitKnown(t, s.vm)
	return s
}

// becomes waits for a change of the VM that satisfies ok, however soon the next change
// follows.
func (s *simulated) becomes(ok func(*migcontrollerv1.VM) bool) *migcontrollerv1.VM {
	for {
		if v := s.changes.next().GetVm(); v != nil && ok(v) {
			return v
		}
	}
}

func isBusy(v *migcontrollerv1.VM) bool { return v.GetCurrentJob() != nil }

// awaitKnown waits until a VM has reported anything.
func (c *controller) awaitKnown(t *testing.T, vm string) {
	t.Helper()
	await(t, vm, func() bool {
		_, err := c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
		return err == nil
	}, func(known bool) bool { return known })
}

// awaitRegistered waits for the registration of this many boots.
func (c *controller) awaitRegistered(t *testing.T, s *simulated, boots int) *migcontrollerv1.VM {
	t.Helper()
	return c.awaitVM(t, s.vm, "registered", func(v *migcontrollerv1.VM) bool {
		return isRegistered(v) && v.GetBoot() == int64(boots)
	})
}

// TestFailedRegistrationsAreShown defends that a failed registration of an agent that acked
// register_runner is shown and logged; that the next attempt is made immediately, then with
// delays, and immediately if an operator requests it; and that success ends the sequence of
// failures, the last of which is kept.
func TestFailedRegistrationsAreShown(t *testing.T) {
	t.Parallel()
	c := start(t) // these log messages are limited for the whole fleet
	s := c.simulate(t, func(c *sim.Config) { c.Quirks.FirstRegistrationsFail = 2 })
	v := c.awaitVM(t, s.vm, "failed, and back", func(v *migcontrollerv1.VM) bool {
		g := v.GetRegistration()
		return g.GetState() == regFailed && g.GetConsecutiveFailures() == 2 && v.GetSessionEpoch() == 3
	})
	g := v.GetRegistration()
	require.InDelta(t, 30, time.Until(g.GetNextAttemptAt().AsTime()).Seconds(), 10)
	require.Contains(t, []string{
		"its agent reported the state error",
		"its agent was started again before the runner was registered", // its last report was lost
	}, g.GetLastFailure().GetReason())
	require.Contains(t, v.GetWaiting().GetReason(), "waits to retry at ")
	regs := c.registrations(t, s.vm)
	require.Len(t, regs, 2)
	for _, r := range regs {
		require.Equal(t, succeeded, r.GetState(), "the configuration was received")
	}
	require.Equal(t, regs[1].GetCommand().GetId(), g.GetLastFailure().GetCommandId())
	lines := await(t, "warnings", func() []string {
		return c.log.lines(`level=WARN msg="registration failed"`, "vm_id="+s.vm+" ")
	}, func(lines []string) bool { return len(lines) == 2 })
	require.Contains(t, lines[1], "failures=2 ")
	require.Contains(t, lines[1], "hint=")

	asked := c.send(t, s.vm, "register_runner").GetCommand().GetId()
	after := c.awaitVM(t, s.vm, "registered", isRegistered).GetRegistration()
	require.Equal(t, asked, after.GetCommandId())
	require.Zero(t, after.GetConsecutiveFailures())
	require.Nil(t, after.GetNextAttemptAt())
	require.True(t, proto.Equal(g.GetLastFailure(), after.GetLastFailure()))
	require.EqualValues(t, 2, s.Snapshot().RegisterFailures)
	require.Len(t, c.registrations(t, s.vm), 3)
}

// TestRestartedAgentIsRegisteredAtOnce defends agents that are restarted, even with a clock
// that starts in 1970 each time: their first heartbeats are sent over HTTP, and the next
// one on the stream is much later. register_runner does not wait for that, and is sent
// once.
func TestRestartedAgentIsRegisteredAtOnce(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sim.Config){
		"today":      func(*sim.Config) {},
		"1970":       func(c *sim.Config) { c.Quirks.Clock1970 = true },
		"ideal":      func(c *sim.Config) { c.Kind = sim.Ideal },
		"ideal 1970": func(c *sim.Config) { c.Kind, c.Quirks.Clock1970 = sim.Ideal, true },
		"by itself":  func(c *sim.Config) { c.Quirks.RestartRegistered = 100 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const boots = 3
			s := shared.simulate(t, change)
			for boot := 1; boot <= boots; boot++ {
				connected := receive(t, "a connect", s.connects)
				require.Less(t, receive(t, "register_runner", s.registers).Sub(connected), withinConnect, "boot %d", boot)
				if name == "by itself" && boot == 1 {
					continue // before the restart is visible
				}
				shared.awaitRegistered(t, s, boot)
				if boot < boots {
					s.Restart()
				}
			}
			require.EqualValues(t, boots-1, s.Snapshot().Restarts)
			require.Empty(t, s.registers)
			require.Len(t, shared.registrations(t, s.vm), boots)
			require.Zero(t, shared.vm(t, s.vm).GetRegistration().GetConsecutiveFailures())
		})
	}
}

// TestJobEventsSetTheCurrentJob defends that a job is shown as soon as it begins, and no
// longer once it has ended, without a heartbeat; and that the VM is then spent.
func TestJobEventsSetTheCurrentJob(t *testing.T) {
	t.Parallel()
	s := shared.simulate(t, withJobs)
	s.becomes(isRegistered)
	v := s.becomes(isBusy)
	started := shared.awaitEvent(t, s.vm, "job_started")
	require.Equal(t, "job:", v.GetCurrentJob().GetJobId())
	require.Nil(t, v.GetSpentAt())
	require.True(t, v.GetLastHeartbeatAt().AsTime().Before(started.GetReceivedAt().AsTime()))
	v = s.becomes(func(v *migcontrollerv1.VM) bool { return !isBusy(v) })
	completed := shared.awaitEvent(t, s.vm, "job_completed")
	require.Equal(t, completed.GetReceivedAt().AsTime(), v.GetSpentAt().AsTime())
	require.True(t, v.GetLastHeartbeatAt().AsTime().Before(started.GetReceivedAt().AsTime()))
	require.True(t, isRegistered(v))
	require.Nil(t, v.GetRunnerCrashedAt())
}

func withJobs(c *sim.Config) {
	c.Timing.JobEvery, c.Timing.JobLength = 200*time.Millisecond, 500*time.Millisecond
}

// TestIdealAgentIsNeverSpent defends agents that run several jobs.
func TestIdealAgentIsNeverSpent(t *testing.T) {
	t.Parallel()
	s := shared.simulate(t, withJobs, func(c *sim.Config) { c.Kind = sim.Ideal })
	for jobs := 1; jobs <= 2; jobs++ {
		await(t, "jobs", func() int { return len(shared.events(t, s.vm, "job_completed")) }, func(n int) bool { return n >= jobs })
		require.Nil(t, shared.vm(t, s.vm).GetSpentAt())
	}
}

// TestCrashedRunnerIsShown defends the state after a runner exits with an error: no job, an
// offline runner, and an unchanged registration.
func TestCrashedRunnerIsShown(t *testing.T) {
	t.Parallel()
	s := shared.simulate(t, withJobs, func(c *sim.Config) { c.Quirks.RunnerCrashes = 1 })
	before := s.becomes(isBusy)
	v := shared.awaitVM(t, s.vm, "crashed", func(v *migcontrollerv1.VM) bool { return v.GetRunnerCrashedAt() != nil })
	crashed := shared.awaitEvent(t, s.vm, "runner_crashed")
	require.Equal(t, crashed.GetReceivedAt().AsTime(), v.GetRunnerCrashedAt().AsTime())
	require.Nil(t, v.GetCurrentJob())
	require.Equal(t, "offline", v.GetRunner().GetState())
	require.True(t, v.GetRunner().GetConfigured())
	require.True(t, isRegistered(before))
	require.True(t, proto.Equal(before.GetRegistration(), v.GetRegistration()))
	await(t, "a warning", func() []string {
		return shared.log.lines(`level=WARN msg="runner crashed"`, "vm_id="+s.vm+" ")
	}, func(lines []string) bool { return len(lines) == 1 })
}

// TestCloneOverHTTPIsContested defends a VM against a clone. Both report their start over
// HTTP, which looks like one VM that restarts repeatedly: this is shown, and no more tokens
// are handed out.
func TestCloneOverHTTPIsContested(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners, tokenInVMStarted)
	vm := newVM()
	first := c.november(t, vm)
	c.awaitKnown(t, vm)
	c.awaitVM(t, vm, "registered", isRegistered)
	c.november(t, vm)
	again := c.awaitVM(t, vm, "registered again", func(v *migcontrollerv1.VM) bool { return isRegistered(v) && v.GetBoot() == 2 })
	require.Nil(t, again.GetContestedAt())
	first.Restart()
	v := c.awaitVM(t, vm, "contested", func(v *migcontrollerv1.VM) bool { return v.GetContestedAt() != nil })
	await(t, "exits", first.Snapshot, func(n sim.Snapshot) bool { return n.Restarts > 3 })
	require.EqualValues(t, 2, v.GetBoot())
	require.Len(t, c.registrations(t, vm), 2)
	require.NotEmpty(t, c.log.lines(`level=WARN msg="VM starts too often: not registered for now"`, "vm_id="+vm+" "))
}

// TestLateReportsRegisterNobodyTwice defends agents whose heartbeats arrive late and out of
// order, or that repeat vm_started during a job, against a second registration, however
// often the network drops. A start and a drop before the agent has reported anything else
// would be a restart.
func TestLateReportsRegisterNobodyTwice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		late, starts float64
		drops        int // during the job
	}{
		"late heartbeats": {0.5, 0, 3},
		"all of them":     {1, 0, 3},
		"repeated starts": {0, 1, 0},
		"both":            {0.5, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := shared.simulate(t, func(c *sim.Config) {
				c.Quirks.LateHeartbeats, c.Quirks.RepeatedStarts = test.late, test.starts
				c.Timing.Heartbeat, c.Timing.Register = 300*time.Millisecond, 2*time.Second
				c.Timing.JobEvery, c.Timing.JobLength = 200*time.Millisecond, time.Second
			})
			drop := func(times int) {
				for range times {
					s.Drop()
					receive(t, "a connect", s.connects)
				}
			}
			receive(t, "a connect", s.connects)
			s.becomes(isBusy)
			drop(test.drops)
			shared.awaitVM(t, s.vm, "spent", func(v *migcontrollerv1.VM) bool { return v.GetSpentAt() != nil })
			require.Len(t, shared.events(t, s.vm, "vm_started"), int(test.starts))
			drop(3)
			last := shared.vm(t, s.vm).GetLastHeartbeatAt().AsTime()
			v := shared.awaitVM(t, s.vm, "beating", func(v *migcontrollerv1.VM) bool {
				return v.GetConnected() && v.GetLastHeartbeatAt().AsTime().After(last.Add(500*time.Millisecond))
			})
			require.True(t, isRegistered(v))
			require.EqualValues(t, 1, v.GetBoot())
			require.Len(t, shared.registrations(t, s.vm), 1)
			require.Len(t, s.registers, 1)
		})
	}
}
