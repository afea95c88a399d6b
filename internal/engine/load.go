package engine

import (
	"cmp"
	"slices"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// load loads the state that the operations need: from the cache, and the rest from the
// driver.
func (g *group) load(ops []*op) error {
	var k store.Keys
	for _, o := range ops {
		for _, vm := range o.vms {
			if g.entries[vm] != nil {
				continue
			}
			en := g.e.entries.Get().(*entry) //nolint:errcheck,forcetypeassert // there is nothing else in it
			en.id = vm
			g.entries[vm] = en
			if h, ok := g.e.cache.get(vm); ok {
				en.begin(h)
			}
			if en.cached.version == 0 || !en.canReduce() {
				k.VMs = append(k.VMs, string(vm))
			}
		}
	}
	if slices.ContainsFunc(ops, func(o *op) bool { return len(o.commands) > 0 }) {
		held := g.openCommands()
		for _, o := range ops {
			k.Commands = append(k.Commands, g.missing(o, held)...)
		}
	}
	if len(k.VMs) == 0 && len(k.Commands) == 0 {
		return nil
	}
	k.Queues, k.Depth = queueNames, fleet.QueueDepth
	return g.e.undamaged(unstoppable, func() error {
		rows, err := g.e.Driver.Load(unstoppable, k)
		if err != nil {
			return err
		}
		vms, badVMs := decoded(rows.VMs, placesOfVM, decodeVM)
		commands, badCommands := decoded(rows.Commands, placesOfCommand, decodeCommand)
		if err := bothDamaged(badVMs, badCommands); err != nil {
			return err
		}
		g.addLoaded(k, rows, vms, commands)
		return nil
	})
}

// missing returns the commands that an operation names and that must be loaded: those that
// are not in memory, or belong to a VM that is not the operation's.
func (g *group) missing(o *op, held map[fleet.CommandID]fleet.VMID) (ids []string) {
	for _, id := range o.commands {
		vm, ok := held[id]
		isNew := o.areNew && !g.reload[id] // expected not to exist
		if !isNew && (!ok || !slices.Contains(o.vms, vm)) {
			ids = append(ids, string(id))
		}
	}
	return ids
}

var queueNames = func() (names []string) {
	for _, q := range fleet.Queues {
		names = append(names, string(q))
	}
	return names
}()

// openCommands returns the open commands in memory, with their VMs.
func (g *group) openCommands() map[fleet.CommandID]fleet.VMID {
	held := map[fleet.CommandID]fleet.VMID{}
	for id, en := range g.entries {
		for _, c := range en.commands {
			held[c.ID] = id
		}
	}
	return held
}

// addLoaded adds what was loaded and decoded.
func (g *group) addLoaded(k store.Keys, rows store.Rows, vms []fleet.VM, commands []fleet.Command) {
	for _, id := range k.VMs {
		en := g.entries[fleet.VMID(id)]
		en.begin(cachedVM{})
		en.loading = true
	}
	for i, row := range rows.VMs {
		en := g.entries[fleet.VMID(row.ID)]
		en.cached.version, en.cached.vm = row.Version, vms[i]
		g.e.cache.complete(&en.cached)
		en.vm = en.cached.vm
	}
	for id := range rows.Aside.Commands {
		g.damaged[fleet.CommandID(id)] = fleet.ErrDamaged
	}
	named := map[string]bool{}
	for _, id := range k.Commands {
		named[id] = true
	}
	for i, row := range rows.Commands {
		c := commands[i]
		if named[row.ID] {
			g.named[c.ID] = c
		}
		if en := g.entries[fleet.VMID(row.VM)]; en != nil && en.loading && row.Queue != string(fleet.QueueNone) {
			en.commands = append(en.commands, c)
		}
	}
	for _, id := range k.VMs {
		en := g.entries[fleet.VMID(id)]
		if en.cached.version == 0 {
			g.continueEpochs(en, rows.Aside.VMs[id])
		}
		en.finishLoad()
	}
}

// continueEpochs makes the epochs of a VM without a row continue after all that it may have
// had, so that no session is mistaken for another. number is that of the row that was set
// aside; zero for none.
func (g *group) continueEpochs(en *entry, number int64) {
	epoch := max(lostEpoch(number), g.e.cache.epoch(en.id))
	for _, c := range en.commands {
		epoch = max(epoch, c.Last.Epoch)
	}
	if epoch > lostEpoch(number) {
		epoch++ // the session with it may be live, and must end
	}
	en.cached.vm.Epoch, en.vm.Epoch = epoch, epoch
}

// finishLoad sorts the commands that were loaded, and drops those that are not among the
// first of their queue: one that was loaded by its id may have others before it that are not
// in memory.
func (en *entry) finishLoad() {
	slices.SortFunc(en.commands, func(a, b fleet.Command) int { return cmp.Compare(a.Seq, b.Seq) })
	count := make(map[fleet.Queue]int, len(fleet.Queues))
	en.commands = slices.DeleteFunc(en.commands, func(c fleet.Command) bool {
		count[c.Queue()]++
		if count[c.Queue()] == fleet.QueueDepth {
			en.more |= bit(c.Queue())
		}
		return count[c.Queue()] > fleet.QueueDepth
	})
	en.cached.commands, en.cached.more = en.commands, en.more
}
