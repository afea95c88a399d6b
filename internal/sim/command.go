package sim

import (
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// The command types of the contract.
const (
	commandRegister     = "register_runner"
	commandDrain        = "drain"
	commandShutdown     = "shutdown"
	commandUpdateConfig = "update_config"
	commandSetLogLevel  = "set_log_level"
)

// handleCommand receives a command and reacts as the agent does.
func (s *stream) handleCommand(c *commands.Command) error {
	a := s.agent
	again := !s.seen.add(c.GetId())
	a.counters.commands.add(c.GetType())
	if again {
		a.counters.duplicates.Add(1)
	}
	a.log.Debug("command received", keyCommand, c.GetId(), keyType, c.GetType(), keyAgain, again)
	if hook := a.cfg.Hooks.OnCommand; hook != nil {
		hook(a.cfg.VMID, c)
	}
	if s.configured && c.GetType() == commandRegister {
		s.countRepeat()
	}
	obeys := a.cfg.Kind.executes()
	switch {
	case !obeys && (s.registering || s.configured):
		s.leaveUnread()
	case c.GetType() == commandRegister:
		s.register(c)
	case !obeys:
		s.ack(c, false, "Command type not yet implemented", nil)
	default:
		return s.execute(c)
	}
	return nil
}

// leaveUnread is what agents in the field do after register_runner: the command goes into a
// buffer that is not read again in this boot.
func (s *stream) leaveUnread() {
	if s.unread == inboxSize {
		s.agent.counters.overflows.Add(1)
		return
	}
	s.unread++
	s.agent.counters.unread.Add(1)
}

// execute is what an ideal agent does with all other commands. A repeated command is
// executed again; all of them are repeatable.
func (s *stream) execute(c *commands.Command) error {
	switch c.GetType() {
	case commandDrain:
		s.ack(c, true, "draining", nil)
		s.drain()
	case commandShutdown:
		s.ack(c, true, "shutting down", nil)
		s.changeState(stateShuttingDown)
		s.event("vm_shutting_down", map[string]string{"reason": "shutdown command"})
		return errShutdown
	case commandUpdateConfig:
		s.ack(c, true, "configuration updated", nil)
	case commandSetLogLevel:
		s.ack(c, true, "log level set", map[string]string{"level": c.GetStringParams()["level"]})
	default:
		s.ack(c, false, "unknown command type", nil)
	}
	return nil
}

// ack answers a command, as far as the quirks allow.
func (s *stream) ack(c *commands.Command, success bool, text string, result map[string]string) {
	a, q := s.agent, s.agent.cfg.Quirks
	if a.chance(q.LostAcks) {
		a.counters.acksLost.Add(1)
		return
	}
	message := &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: &commands.CommandAck{
		CommandId: c.GetId(),
		Success:   success,
		Message:   text,
		Result:    result,
	}}}
	if a.chance(q.SlowAcks) {
		s.tasks.after(q.SlowAckDelay, func(s *stream) error { s.sendAck(message); return nil })
		return
	}
	s.sendAck(message)
}

func (s *stream) sendAck(message *commands.MIGletMessage) {
	times := 1
	if s.agent.chance(s.agent.cfg.Quirks.DuplicateAcks) {
		times = 2
	}
	for range times {
		if s.send(message) {
			s.agent.counters.acks.Add(1)
		}
	}
}

// register begins the registration of the runner, unless it has begun.
func (s *stream) register(c *commands.Command) {
	a, params := s.agent, c.GetStringParams()
	if s.configured {
		s.ack(c, true, "already registered", nil)
		return
	}
	if params["registration_token"] == "" || params["runner_url"] == "" {
		a.counters.errors.add(commandRegister)
		s.ack(c, false, "registration_token and runner_url are required", nil)
		return
	}
	s.ack(c, true, "configuration received", nil)
	if !s.registering {
		s.configure(params["runner_url"], params["runner_group"], c.GetStringArrayParams())
	}
}

// configure registers the runner, which takes time and can fail.
func (s *stream) configure(url, group string, labels []string) {
	a := s.agent
	s.registering = true
	s.runnerURL, s.runnerGroup, s.labels = url, group, labels
	if s.state != stateDraining {
		s.changeState(stateRegistering)
	}
	end := (*stream).registered
	if a.failsToRegister() {
		end = (*stream).registrationFailed
	}
	s.agenda.after(a.around(a.cfg.Timing.Register), end)
}

// countRepeat counts a register_runner that the controller should not have sent, if it
// could know that.
func (s *stream) countRepeat() {
	s.recordProof()
	if s.proven && !s.falseStart && !s.agent.contested && s.agent.cfg.Kind.reportsState() {
		s.agent.counters.registerRepeats.Add(1)
		s.agent.log.Warn("register_runner for a registered runner")
		return
	}
	s.agent.counters.registerRaces.Add(1)
}

// recordProof records when this stream proved the registration.
func (s *stream) recordProof() {
	if s.accepted && !s.proofAt.IsZero() && time.Since(s.proofAt) >= s.agent.cfg.Timing.ProofGrace {
		s.proven = true
	}
}

// drain takes no more jobs, waits for the running one, then rests.
func (s *stream) drain() {
	s.drained = true
	if s.state == stateDraining {
		return
	}
	s.changeState(stateDraining)
	if s.job == nil {
		s.agenda.after(s.agent.cfg.Timing.Drain, (*stream).endDrain)
	}
}

func (s *stream) endDrain() error {
	s.changeState(s.resting())
	return nil
}
