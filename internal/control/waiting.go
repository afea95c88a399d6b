package control

import (
	"context"
	"errors"
	"slices"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// explain returns commands with what they wait for. Each VM is looked up once; a
// command that was delivered before that is as its queue has it.
func (c *Control) explain(ctx context.Context, cmds []fleet.Command) []fleet.Command {
	now := c.clock()
	known := map[fleet.VMID]situation{}
	for i, cmd := range cmds {
		if cmd.State.Terminal() {
			continue
		}
		s, ok := known[cmd.VM]
		if !ok {
			s = c.situation(ctx, cmd.VM)
			known[cmd.VM] = s
		}
		if s.err != nil {
			continue
		}
		if j := slices.IndexFunc(s.open, func(o fleet.Command) bool { return o.ID == cmd.ID }); j >= 0 {
			cmd = s.open[j]
		}
		cmd.Waiting = cmd.Waits(s.vm, s.open, now)
		cmds[i] = cmd
	}
	return cmds
}

// explainOne is explain for one command.
func (c *Control) explainOne(ctx context.Context, cmd fleet.Command) fleet.Command {
	return c.explain(ctx, []fleet.Command{cmd})[0]
}

// situation is what the commands of a VM wait in.
type situation struct {
	vm   fleet.VM
	open []fleet.Command
	err  error
}

func (c *Control) situation(ctx context.Context, id fleet.VMID) (s situation) {
	if s.vm, s.err = c.store.VM(ctx, id); errors.Is(s.err, fleet.ErrNotFound) {
		s.err = nil
	}
	if s.err == nil {
		s.open, s.err = c.store.Queue(ctx, id, c.clock())
	}
	return s
}
