package engine

import (
	"context"
	"maps"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// seenLately is how long before a step of the clock VMs that are not connected were last
// seen, at most, for their times to be moved: those that report over HTTP are still
// there.
const seenLately = time.Hour

// move is a step of the clock whose times are being moved. The loop owns it.
type move struct {
	jump wallclock.Jump
	// vms and commands are those that were moved, or that are younger than the step: all
	// that were part of a group since.
	vms      map[fleet.VMID]bool
	commands map[fleet.CommandID]bool
	// doubted is what a commit has moved or made that is in doubt; nil for none. Whether
	// it was made is seen by the mark movedWith, under which each commit stores number.
	doubted *move
	number  int64
}

// movedWith is the mark of the latest commit that may have moved times with the clock.
const movedWith = "moved_with_clock"

func newMove(j wallclock.Jump) *move {
	return &move{jump: j, vms: map[fleet.VMID]bool{}, commands: map[fleet.CommandID]bool{}, number: j.At.UnixNano()}
}

// AdoptClock has the clock step: adopt makes Clock show another time and returns by how
// much. Before any input is reduced as of the new time, the times of its VM and of the
// VM's commands are moved, as fleet.ClockMoved says; inputs that were made before the
// step count as made right after it. MoveDeadlines must follow, and succeed, before the
// next AdoptClock. It needs no database.
func (e *Engine) AdoptClock(ctx context.Context, adopt func() wallclock.Jump) (wallclock.Jump, error) {
	var j wallclock.Jump
	err := e.betweenGroups(ctx, func() {
		if j = adopt(); j.By != 0 {
			e.jump, e.moving = j, newMove(j)
			e.purging.moved(j)
		}
	})
	return j, err
}

// MoveDeadlines moves the times of all VMs that are connected, have something due or
// were seen lately, and of all open commands, in bounded steps. Those that a crash
// leaves are not moved any more, since a later run takes the time as it finds it. With
// nothing to move it returns nil.
func (e *Engine) MoveDeadlines(ctx context.Context) error {
	var m *move
	if err := e.betweenGroups(ctx, func() { m = e.moving }); err != nil || m == nil {
		return err
	}
	if err := e.moveVMs(ctx, m.jump.At.Add(-m.jump.By-seenLately)); err != nil {
		return err
	}
	if err := e.moveCommands(ctx); err != nil {
		return err
	}
	return e.betweenGroups(ctx, func() { e.moving = nil })
}

func (e *Engine) moveVMs(ctx context.Context, since time.Time) error {
	var q store.VMQuery
	for {
		var rows []store.VMRow
		var more bool
		err := e.undamaged(ctx, func() (err error) {
			rows, more, err = e.Driver.VMs(ctx, q, recoverBatch)
			return err
		})
		if err != nil {
			return unavailable(ctx, err)
		}
		var o op
		for _, row := range rows {
			q.After = row.ID
			if row.Connected || !row.DueAt.IsZero() || row.LastSeenAt.After(since) {
				o.vms = append(o.vms, fleet.VMID(row.ID))
			}
		}
		if err := e.touch(ctx, &o); err != nil || !more {
			return err
		}
	}
}

func (e *Engine) moveCommands(ctx context.Context) error {
	q := store.CommandQuery{States: []string{string(fleet.Pending), string(fleet.Delivered)}}
	for {
		var rows []store.CommandRow
		var more bool
		err := e.undamaged(ctx, func() (err error) {
			rows, more, err = e.Driver.Commands(ctx, q, recoverBatch)
			return err
		})
		if err != nil {
			return unavailable(ctx, err)
		}
		var o op
		for _, row := range rows {
			q.Before = row.Seq
			o.vms, o.commands = append(o.vms, fleet.VMID(row.VM)), append(o.commands, fleet.CommandID(row.ID))
		}
		if err := e.touch(ctx, &o); err != nil || !more {
			return err
		}
	}
}

// touch makes VMs and commands part of a group, which moves their times.
func (e *Engine) touch(ctx context.Context, o *op) error {
	if len(o.vms) == 0 {
		return nil
	}
	o.run = func(*group) error { return nil }
	return e.do(ctx, o)
}

// betweenGroups calls fn while the loop does nothing else. fn must not block.
func (e *Engine) betweenGroups(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	select {
	case e.between <- func() { defer close(done); fn() }:
		<-done
		return nil
	case <-e.stopping:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// followClock moves the times of what the operations need, if the clock has stepped since
// they were committed. What is damaged is left.
func (g *group) followClock(ops []*op) error {
	m := g.e.moving
	if m == nil {
		return nil
	}
	if m.doubted != nil {
		latest, err := g.e.Driver.Mark(unstoppable, movedWith)
		if err != nil {
			return err
		}
		if latest == m.number {
			m.add(m.doubted)
		}
		m.doubted = nil
	}
	g.moved = newMove(m.jump)
	for _, o := range ops {
		for _, vm := range o.vms {
			g.moveVM(vm)
		}
		for _, id := range o.commands {
			g.moveCommand(g.command(id))
		}
	}
	m.number++
	g.mark(movedWith, m.number)
	return nil
}

func (g *group) moveVM(vm fleet.VMID) {
	if !g.e.moving.vms[vm] && !g.moved.vms[vm] {
		g.moved.vms[vm] = true
		g.move(fleet.ClockMoved{VM: vm, By: g.moved.jump.By})
	}
	for _, c := range g.entries[vm].commands { // the state that moveCommand leaves has a slice of its own
		g.moveCommand(c)
	}
}

// moveCommand moves a command, or does nothing for the zero Command. Those of a VM that is not in the
// group are moved with that.
func (g *group) moveCommand(c fleet.Command) {
	if g.entries[c.VM] == nil || g.e.moving.commands[c.ID] || g.moved.commands[c.ID] {
		return
	}
	g.moved.commands[c.ID] = true
	g.move(fleet.ClockMoved{VM: c.VM, Command: c.ID, By: g.moved.jump.By})
}

func (g *group) move(in fleet.ClockMoved) {
	_, _ = g.reduce(in.VM, in, g.e.Clock()) // an error is that of a damaged record, which no other input changes either
}

// movedOn notes, after the commit, what needs no moving any more: also what the group
// has made. It is in doubt after an error.
func (g *group) movedOn(err error) {
	if g.moved == nil {
		return
	}
	for _, c := range g.commands {
		g.moved.commands[c.ID] = true
	}
	if err != nil {
		g.e.moving.doubted = g.moved
		return
	}
	g.e.moving.add(g.moved)
}

func (m *move) add(o *move) {
	maps.Copy(m.vms, o.vms)
	maps.Copy(m.commands, o.commands)
}

// afterJump returns an input and its time as they are after the latest step of the clock.
func (e *Engine) afterJump(in fleet.Input, now time.Time) (fleet.Input, time.Time) {
	if e.jump.By == 0 {
		return in, now
	}
	switch in := in.(type) {
	case fleet.Tick, fleet.ClockMoved, fleet.ControllerRestarted: // a Tick may be as of an earlier time
		return in, now
	case fleet.CommandAccepted: // now is newer than its times
		return fleet.AfterJump(in, e.jump.Stale(in.New.AcceptedAt, e.Clock())), now
	}
	if by := e.jump.Stale(now, e.Clock()); by != 0 {
		return fleet.AfterJump(in, by), now.Add(by)
	}
	return in, now
}
