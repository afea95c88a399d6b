package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

func TestCommand_IdealAgentAcks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind    string
		success bool
	}{
		{"drain", true},
		{"update_config", true},
		{"set_log_level", true},
		{"shutdown", true},
		{"make_coffee", false},
	} {
		for name, registered := range map[string]bool{" before registration": false, " after registration": true} {
			t.Run(test.kind+name, func(t *testing.T) {
				t.Parallel()
				c := startController(t)
				start(t, quick(c))
				s := c.accept(t)
				if registered {
					s.registerRunner(t, "c-1")
				}
				s.command(t, "c-2", test.kind)
				ack := s.ack(t)
				require.Equal(t, "c-2", ack.GetCommandId())
				require.Equal(t, test.success, ack.GetSuccess())
			})
		}
	}
}

func TestCommand_DrainLetsTheJobEndAndTakesNoOther(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.JobEvery = time.Millisecond
	cfg.Timing.JobLength = 500 * time.Millisecond
	start(t, cfg)
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	s.event(t, "job_started")
	s.heartbeat(t, "job_running")
	s.command(t, "c-2", "drain")
	require.NotNil(t, s.heartbeat(t, "draining").GetCurrentJob())
	s.event(t, "job_completed")
	require.Nil(t, s.heartbeat(t, "idle").GetCurrentJob())

	s.command(t, "c-3", "set_log_level")
	for {
		message := within(t, s.in, "an ack")
		require.NotEqual(t, "job_started", message.GetEvent().GetType())
		if message.GetCommandAck() != nil {
			return
		}
	}
}

func TestCommand_ShutdownEndsTheStreamAndBootsAgain(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	s.command(t, "c-2", "shutdown")
	require.True(t, s.ack(t).GetSuccess())
	s.heartbeat(t, "shutting_down")
	s.event(t, "vm_shutting_down")
	s.gone(t)
	s.close(t, nil)

	s = c.accept(t)
	require.False(t, s.heartbeat(t, "ready").GetRunnerState().GetConfigured())
	got := agent.Snapshot()
	require.EqualValues(t, 1, got.Shutdowns)
	require.Zero(t, got.TotalErrors())
}

// A VM that is off stays off until its power-on time or until it is switched on.
func TestCommand_RestartSwitchesAVMOn(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Timing.PowerOn = time.Hour
	off := make(chan error, 1)
	cfg.Hooks.OnDisconnect = func(_ string, end error) { off <- end }
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "shutdown")
	s.gone(t)
	s.close(t, nil)
	_ = within(t, off, "the end of the stream")
	agent.Restart()
	c.accept(t)
}

func TestCommand_LostAcks(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.LostAcks = 1
	agent, _ := start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "register_runner")
	for {
		message := within(t, s.in, "the registration")
		require.Nil(t, message.GetCommandAck())
		if message.GetEvent().GetType() == "runner_registered" {
			break // the agent executed the command that it did not ack
		}
	}
	require.EqualValues(t, 1, agent.Snapshot().AcksLost)
	require.Zero(t, agent.Snapshot().Acks)
}

func TestCommand_SlowAcks(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.SlowAcks, cfg.Quirks.SlowAckDelay = 1, 50*time.Millisecond
	start(t, cfg)
	s := c.accept(t)
	sent := time.Now()
	s.command(t, "c-1", "set_log_level")
	s.ack(t)
	require.GreaterOrEqual(t, time.Since(sent), 50*time.Millisecond)
}

func TestCommand_DuplicateAcks(t *testing.T) {
	t.Parallel()
	c := startController(t)
	cfg := quick(c)
	cfg.Quirks.DuplicateAcks = 1
	start(t, cfg)
	s := c.accept(t)
	s.command(t, "c-1", "set_log_level")
	require.Equal(t, "c-1", s.ack(t).GetCommandId())
	require.Equal(t, "c-1", s.ack(t).GetCommandId())
}

func TestCommand_CountsWhatAHealthyControllerNeverDoes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		grace         time.Duration
		id            string
		dups          int64
		repeat, races int64
	}{
		{"another registration", 0, "c-2", 0, 1, 0},
		{"the same registration again", 0, "c-1", 1, 1, 0},
		{"before it had to know", time.Hour, "c-2", 0, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			cfg := quick(c)
			cfg.Timing.ProofGrace = test.grace
			agent, _ := start(t, cfg)
			s := c.accept(t)
			s.registerRunner(t, "c-1")
			s.close(t, nil)
			s = c.accept(t)
			s.heartbeat(t, "idle")
			s.command(t, test.id, "register_runner")
			require.True(t, s.ack(t).GetSuccess())
			got := agent.Snapshot()
			require.Equal(t, test.dups, got.Duplicates)
			require.Equal(t, test.repeat, got.RegisterRepeats)
			require.Equal(t, test.races, got.RegisterRaces)
			require.EqualValues(t, 1, got.RunnersRegistered)
		})
	}
}

// A restarted agent remembers no ids: a repeated command is not a duplicate.
func TestCommand_DuplicatesArePerBoot(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))
	s := c.accept(t)
	s.registerRunner(t, "c-1")
	agent.Restart()
	s = c.accept(t)
	s.registerRunner(t, "c-1")
	require.Zero(t, agent.Snapshot().Duplicates)
}

func TestCommand_RegistrationNeedsItsParameters(t *testing.T) {
	t.Parallel()
	c := startController(t)
	agent, _ := start(t, quick(c))
	s := c.accept(t)
	s.send(t, &commands.ControllerMessage{Message: &commands.ControllerMessage_Command{
		Command: &commands.Command{Id: "c-1", Type: "register_runner"},
	}})
	require.False(t, s.ack(t).GetSuccess())
	require.EqualValues(t, 1, agent.Snapshot().Errors["register_runner"])
	require.Zero(t, agent.Snapshot().RunnersRegistered)
}
