package engine

import (
	"context"
	"maps"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// seenLately is how recently a VM that is not connected must have been seen for a clock
// step to shift its times: VMs that report over HTTP are still running.
const seenLately = time.Hour

// move is a clock step whose times are being shifted. The loop owns it.
type move struct {
	jump wallclock.Jump
	// vms and commands are those that were shifted, or that are newer than the step: all
	// that were part of a group since.
	vms      map[fleet.VMID]bool
	commands map[fleet.CommandID]bool
	// inDoubt is what a commit of unknown outcome has shifted or created; nil for none. The
	// mark movedWith, in which each commit stores number, shows whether it was made.
	inDoubt *move
	number  int64
}

// movedWith is the mark of the latest commit that may have shifted times.
const movedWith = "moved_with_clock"

func newMove(j wallclock.Jump) *move {
	return &move{jump: j, vms: map[fleet.VMID]bool{}, commands: map[fleet.CommandID]bool{}, number: j.At.UnixNano()}
}

// AdoptClock applies a clock step: adopt makes Clock show another time and returns the
// difference. Before any input is reduced at the new time, the times of its VM and of the
// VM's commands are shifted, as fleet.ClockMoved says; inputs that were made before the
// step count as made right after it. MoveDeadlines must follow, and succeed, before the
// next AdoptClock. AdoptClock does not use the database.
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

// MoveDeadlines shifts the times of all VMs that are connected, have something due or were
// seen lately, and of all open commands, in bounded steps. Those that a crash interrupts
// are not shifted later, since the next run starts with the stored times. It returns nil if
// there is nothing to shift.
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

// touch makes VMs and commands part of a group, which shifts their times.
func (e *Engine) touch(ctx context.Context, o *op) error {
	if len(o.vms) == 0 {
		return nil
	}
	o.run = func(*group) error { return nil }
	return e.do(ctx, o)
}

// betweenGroups calls fn while the loop is idle. fn must not block.
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

// followClock shifts the times of what the operations need, if the clock has stepped since
// they were committed. Damaged records are skipped.
func (g *group) followClock(ops []*op) error {
	m := g.e.moving
	if m == nil {
		return nil
	}
	if m.inDoubt != nil {
		latest, err := g.e.Driver.Mark(unstoppable, movedWith)
		if err != nil {
			return err
		}
		if latest == m.number {
			m.add(m.inDoubt)
		}
		m.inDoubt = nil
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
	for _, c := range g.entries[vm].commands { // moveCommand replaces the slice
		g.moveCommand(c)
	}
}

// moveCommand shifts a command; it does nothing for the zero Command. The commands of a VM
// outside the group are shifted with that VM.
func (g *group) moveCommand(c fleet.Command) {
	if g.entries[c.VM] == nil || g.e.moving.commands[c.ID] || g.moved.commands[c.ID] {
		return
	}
	g.moved.commands[c.ID] = true
	g.move(fleet.ClockMoved{VM: c.VM, Command: c.ID, By: g.moved.jump.By})
}

func (g *group) move(in fleet.ClockMoved) {
	_, _ = g.reduce(in.VM, in, g.e.Clock()) // an error means a damaged record, which no other input can change either
}

// recordMoved records, after the commit, what needs no further shift, including what the
// group has created. After an error it is in doubt.
func (g *group) recordMoved(err error) {
	if g.moved == nil {
		return
	}
	for _, c := range g.commands {
		g.moved.commands[c.ID] = true
	}
	if err != nil {
		g.e.moving.inDoubt = g.moved
		return
	}
	g.e.moving.add(g.moved)
}

func (m *move) add(o *move) {
	maps.Copy(m.vms, o.vms)
	maps.Copy(m.commands, o.commands)
}

// afterJump returns an input and its time, adjusted to the latest clock step.
func (e *Engine) afterJump(in fleet.Input, now time.Time) (fleet.Input, time.Time) {
	if e.jump.By == 0 {
		return in, now
	}
	switch in := in.(type) {
	case fleet.Tick, fleet.ClockMoved, fleet.ControllerRestarted: // a Tick may be for an earlier time
		return in, now
	case fleet.CommandAccepted: // now is newer than its times
		return fleet.ShiftInput(in, e.jump.Stale(in.New.AcceptedAt, e.Clock())), now
	}
	if by := e.jump.Stale(now, e.Clock()); by != 0 {
		return fleet.ShiftInput(in, by), now.Add(by)
	}
	return in, now
}
