package sim

import (
	"context"
	"time"
)

// devVersion is the version that builds in the field report.
const devVersion = "dev"

func (a *Agent) version() string {
	if a.cfg.Kind.executes() {
		return a.cfg.Version
	}
	return devVersion
}

// offline represents an agent without a stream: builds in the field then report over HTTP.
func (a *Agent) offline(ctx context.Context, b *boot) *stream {
	return &stream{boot: b, agent: a, ctx: ctx, broken: true}
}

// start takes the agent to its first stream. Builds in the field are ready before the
// stream is open.
func (s *stream) start() {
	a := s.agent
	if a.cfg.Kind.executes() {
		a.setState(s.boot, stateConnecting)
		return
	}
	s.changeState(stateConnecting)
	s.changeState(stateReady)
	if a.cfg.Kind.reportsState() {
		s.agenda.after(a.phase(), (*stream).beatAgain)
	}
}

// liveOverHTTP is the boot of an agent that does not use streams.
func (a *Agent) liveOverHTTP(ctx context.Context, b *boot) error {
	a.setState(b, stateConnecting)
	runner, err := a.announce(ctx)
	if err != nil {
		return err
	}
	if runner.Token == "" || runner.URL == "" {
		a.counters.errors.add(commandRegister)
		a.counters.restarts.Add(1)
		if !a.warned {
			a.warned = true
			a.log.Warn("the answer to vm_started contains no registration: the agent exits and restarts")
		}
		return errExit
	}
	s := a.offline(ctx, b)
	s.configure(runner.URL, runner.Group, runner.Labels)
	s.plan(a.cfg.Quirks.RestartEvery, errRestart)
	end := s.live(time.Time{})
	if ctx.Err() == nil {
		a.count(end)
	}
	return end
}

// spend marks the VM as spent after the job of its ephemeral runner: it reports that it is
// idle, and takes no other job.
func (s *stream) spend() {
	a := s.agent
	s.spent = true
	a.counters.spent.Add(1)
	if stay := a.cfg.Timing.ReplaceAfter; stay > 0 {
		s.agenda.after(stay, func(*stream) error { return ErrReplaced })
	}
}
