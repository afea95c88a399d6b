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

// clockShift is a clock step for which times are being shifted. The loop owns it.
type clockShift struct {
	jump wallclock.Jump
	// vms and commands are those that were shifted, or that are newer than the step: all
	// that were part of a group since.
	vms      map[fleet.VMID]bool
	commands map[fleet.CommandID]bool
	// inDoubt is what a commit of unknown outcome has shifted or created; nil for none. The
	// mark shiftedMark, in which each commit stores number, shows whether it was made.
	inDoubt *clockShift
	number  int64
}

// shiftedMark is the mark of the latest commit that may have shifted times.
const shiftedMark = "moved_with_clock"

func newClockShift(j wallclock.Jump) *clockShift {
	return &clockShift{jump: j, vms: map[fleet.VMID]bool{}, commands: map[fleet.CommandID]bool{}, number: j.At.UnixNano()}
}

// AdoptClock applies a clock step: adopt makes Clock show another time and returns the
// difference. Before any input is reduced at the new time, the times of its VM and of the
// VM's commands are shifted, as fleet.ClockMoved specifies; inputs that were made before the
// step count as made right after it. MoveDeadlines must follow, and succeed, before the
// next AdoptClock. AdoptClock does not use the database.
func (e *Engine) AdoptClock(ctx context.Context, adopt func() wallclock.Jump) (wallclock.Jump, error) {
	var j wallclock.Jump
	err := e.betweenGroups(ctx, func() {
		if j = adopt(); j.By != 0 {
			e.jump, e.shifting = j, newClockShift(j)
			e.purging.applyJump(j)
		}
	})
	return j, err
}

// MoveDeadlines shifts the times of all VMs that are connected, have something due or were
// seen lately, and of all open commands, in batches. After a crash the rest is not shifted:
// the next run uses the stored times as they are. It returns nil if there is nothing to
// shift.
func (e *Engine) MoveDeadlines(ctx context.Context) error {
	var m *clockShift
	if err := e.betweenGroups(ctx, func() { m = e.shifting }); err != nil || m == nil {
		return err
	}
	if err := e.shiftVMs(ctx, m.jump.At.Add(-m.jump.By-seenLately)); err != nil {
		return err
	}
	if err := e.shiftCommands(ctx); err != nil {
		return err
	}
	return e.betweenGroups(ctx, func() { e.shifting = nil })
}

func (e *Engine) shiftVMs(ctx context.Context, since time.Time) error {
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
		if err := e.shiftTimes(ctx, &o); err != nil || !more {
			return err
		}
	}
}

func (e *Engine) shiftCommands(ctx context.Context) error {
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
		if err := e.shiftTimes(ctx, &o); err != nil || !more {
			return err
		}
	}
}

// shiftTimes makes VMs and commands part of a group, which shifts their times.
func (e *Engine) shiftTimes(ctx context.Context, o *op) error {
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
	m := g.e.shifting
	if m == nil {
		return nil
	}
	if m.inDoubt != nil {
		latest, err := g.e.Driver.Mark(unstoppable, shiftedMark)
		if err != nil {
			return err
		}
		if latest == m.number {
			m.add(m.inDoubt)
		}
		m.inDoubt = nil
	}
	g.shifted = newClockShift(m.jump)
	for _, o := range ops {
		for _, vm := range o.vms {
			g.shiftVM(vm)
		}
		for _, id := range o.commands {
			g.shiftCommand(g.command(id))
		}
	}
	m.number++
	g.mark(shiftedMark, m.number)
	return nil
}

func (g *group) shiftVM(vm fleet.VMID) {
	if !g.e.shifting.vms[vm] && !g.shifted.vms[vm] {
		g.shifted.vms[vm] = true
		g.shift(fleet.ClockMoved{VM: vm, By: g.shifted.jump.By})
	}
	for _, c := range g.entries[vm].commands { // shiftCommand replaces the slice
		g.shiftCommand(c)
	}
}

// shiftCommand shifts a command; it does nothing for the zero Command. The commands of a VM
// outside the group are shifted with that VM.
func (g *group) shiftCommand(c fleet.Command) {
	if g.entries[c.VM] == nil || g.e.shifting.commands[c.ID] || g.shifted.commands[c.ID] {
		return
	}
	g.shifted.commands[c.ID] = true
	g.shift(fleet.ClockMoved{VM: c.VM, Command: c.ID, By: g.shifted.jump.By})
}

func (g *group) shift(in fleet.ClockMoved) {
	_, _ = g.reduce(in.VM, in, g.e.Clock()) // an error means a damaged record, which no other input can change either
}

// recordShifted records, after the commit, what needs no further shift, including what the
// group has created. After an error it is in doubt.
func (g *group) recordShifted(err error) {
	if g.shifted == nil {
		return
	}
	for _, c := range g.commands {
		g.shifted.commands[c.ID] = true
	}
	if err != nil {
		g.e.shifting.inDoubt = g.shifted
		return
	}
	g.e.shifting.add(g.shifted)
}

func (m *clockShift) add(o *clockShift) {
	maps.Copy(m.vms, o.vms)
	maps.Copy(m.commands, o.commands)
}

// shiftInput returns an input and its time, adjusted to the latest clock step.
func (e *Engine) shiftInput(in fleet.Input, now time.Time) (fleet.Input, time.Time) {
	if e.jump.By == 0 {
		return in, now
	}
	switch in := in.(type) {
	case fleet.Tick, fleet.ClockMoved, fleet.ControllerRestarted: // a Tick may be for an earlier time
		return in, now
	case fleet.Limited:
		in.Input, now = e.shiftInput(in.Input, now)
		return in, now
	case fleet.CommandAccepted: // now is newer than its times
		return fleet.ShiftInput(in, e.jump.Stale(in.New.AcceptedAt, e.Clock())), now
	}
	if by := e.jump.Stale(now, e.Clock()); by != 0 {
		return fleet.ShiftInput(in, by), now.Add(by)
	}
	return in, now
}
