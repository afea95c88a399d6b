package measure

import (
	"context"
	"fmt"
	"maps"

	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// growthAtOnce is how many VMs get commands concurrently in growth measures: how many
// commands share a commit determines the cost of each.
const growthAtOnce = 100

// growthVMs measures the cost of a heartbeat and a command with this many VMs.
func (b *Bench) growthVMs(ctx context.Context, kind target.Kind, vms int) (Values, error) {
	return b.with(ctx, kind, vms, func(ctx context.Context, s scene) (Values, error) {
		beats, err := b.beats(ctx, s, b.Sizes.GrowthFor, func(ctx context.Context) { s.fleet.Pace(ctx, b.Sizes.GrowthRate) })
		if err != nil {
			return nil, err
		}
		v := Values{}
		for name, value := range beats {
			v["heartbeat_"+name] = value
		}
		return b.growthCommands(ctx, s, v)
	})
}

// growthStored measures the cost of a command with this many in the store.
func (b *Bench) growthStored(ctx context.Context, kind target.Kind, commands int) (Values, error) {
	dir, err := b.filled(ctx, storedSize{min(commands, b.Sizes.StartVMs), commands})
	if err != nil {
		return nil, err
	}
	s, err := b.Programs.StartIn(ctx, kind, dir, target.AnyPort)
	if err != nil {
		return nil, err
	}
	defer s.Kill()
	v, err := b.on(ctx, s, b.newName(), growthAtOnce, func(ctx context.Context, s scene) (Values, error) {
		return b.growthCommands(ctx, s, Values{})
	})
	if err != nil {
		return nil, err
	}
	return v, s.Stop()
}

// newName returns a fleet name that no database contains.
func (b *Bench) newName() string {
	b.fleets++
	return fmt.Sprintf("fleet-%d", b.fleets)
}

// growthCommands adds the cost of a command.
func (b *Bench) growthCommands(ctx context.Context, s scene, v Values) (Values, error) {
	commands, err := s.command(ctx, min(growthAtOnce, s.fleet.Len()), func(n int64) bool { return n <= int64(b.Sizes.GrowthCommands) })
	for name, value := range maps.All(commands) {
		v["command_"+name] = value
	}
	return v, err
}
