package control

import (
	"context"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// explain returns commands with what they wait for. Each VM is looked up once; a
// command that has moved on meanwhile is returned as it is then.
func (c *Control) explain(ctx context.Context, cmds []fleet.Command) []fleet.Command {
	now := c.clock()
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
			known[cmd.VM] = s
		}
		if newer, ok := s.Command(cmd.ID); ok {
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
