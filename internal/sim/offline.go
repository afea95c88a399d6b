package sim

import (
	"context"
	"time"
)

// devVersion is what builds in the field call themselves.
const devVersion = "dev"

func (a *Agent) version() string {
	if a.cfg.Kind.obeys() {
		return a.cfg.Version
	}
	return devVersion
}

// offline is the life of an agent that has no stream: nothing can be sent or
// received on it, so builds in the field report over HTTP.
func (a *Agent) offline(ctx context.Context, b *boot) *stream {
	return &stream{boot: b, agent: a, ctx: ctx, broken: true}
}

// start takes the agent to its first stream. In the field it is ready before
// the stream is up.
func (s *stream) start() {
	a := s.agent
	if a.cfg.Kind.obeys() {
		a.setState(s.boot, stateConnecting)
		return
	}
	s.changeState(stateConnecting)
	s.changeState(stateReady)
	if a.cfg.Kind.namesState() {
		s.agenda.after(a.phase(), (*stream).beatAgain)
	}
}

// liveOverHTTP is the boot of an agent that knows no streams.
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
			a.log.Warn("the answer to vm_started holds no registration: the agent exits, and will again")
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

// spend leaves the VM as an ephemeral runner does that has had its job: it
// reports that it is idle, and takes no other.
func (s *stream) spend() {
	a := s.agent
	s.spent = true
	a.counters.spent.Add(1)
	if stay := a.cfg.Timing.ReplaceAfter; stay > 0 {
		s.agenda.after(stay, func(*stream) error { return ErrReplaced })
	}
}
