package control

import (
	"context"
	"slices"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// explain returns commands with what they wait for. Each VM is looked up once, and only the
// outlines of its commands are kept; a command that has changed meanwhile is returned in
// its new state, unless its VM has left the pools of the caller.
func (c *Control) explain(ctx context.Context, cmds []fleet.Command) []fleet.Command {
	now, r := c.clock(), reachOf(ctx)
	known := map[fleet.VMID]fleet.State{}
	for i, cmd := range cmds {
		if cmd.State.Terminal() {
			continue
		}
		s, ok := known[cmd.VM]
		if !ok {
			var err error
			if s, err = c.engine.State(ctx, cmd.VM); err != nil {
				continue
			}
			s.Commands = slices.Clone(s.Commands)
			for j, open := range s.Commands {
				s.Commands[j] = open.Outline()
			}
			known[cmd.VM] = s
		}
		if !r.has(s.VM) {
			continue
		}
		if newer, ok := s.Command(cmd.ID); ok {
			newer.Params = cmd.Params
			cmd = newer
		}
		cmd.Waiting = cmd.Waits(s.VM, s.Commands, now)
		cmds[i] = cmd
	}
	return cmds
}

// explainOne is explain for one command.
func (c *Control) explainOne(ctx context.Context, cmd fleet.Command) fleet.Command {
	return c.explain(ctx, []fleet.Command{cmd})[0]
}
