package sqlstore

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Next returns the command that Lease would claim.
func (db *DB) Next(ctx context.Context, vm fleet.VMID, a store.Attempt) (fleet.Command, error) {
	v, err := db.VM(ctx, vm)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return fleet.Command{}, err
	}
	d, err := delivery(v, a)
	if err != nil {
		return fleet.Command{}, err
	}
	open, err := db.Queue(ctx, vm, a.At)
	if err != nil {
		return fleet.Command{}, err
	}
	return fleet.NextDelivery(open, d, a.Written, a.WithoutToken)
}

// Lease claims a command for an attempt that is about to be made.
func (db *DB) Lease(
	ctx context.Context, vm fleet.VMID, id fleet.CommandID, a store.Attempt,
) (c fleet.Command, err error) {
	// A lease for a stream that is lost with the power is repeated on the next
	// session, as it is anyway. What was handed to a poll is not handed out again.
	write := db.updateLazily
	if a.Via == fleet.HTTP {
		write = db.update
	}
	err = write(ctx, func(t *tx) error {
		v, err := t.vmOrNew(vm, a.At)
		if err != nil {
			return err
		}
		d, err := delivery(v, a)
		if err != nil {
			return err
		}
		open, err := t.queue(vm, a.At)
		if err != nil {
			return err
		}
		next, err := fleet.NextDelivery(open, d, a.Written, a.WithoutToken)
		if err != nil || next.ID != id {
			return fleet.ErrNotDue
		}
		if c, err = next.Delivered(d); err != nil {
			return err
		}
		if c.Type == fleet.RegisterRunner && v.TokenWait != (fleet.TokenWait{}) {
			v.TokenWait = fleet.TokenWait{}
			t.putVM(v, a.At)
		}
		return t.putCommand(c, a.At)
	})
	return c, err
}

// NotWritten takes back a delivery that was not written in full.
func (db *DB) NotWritten(ctx context.Context, id fleet.CommandID, e fleet.Epoch, now time.Time) error {
	return db.updateLazily(ctx, func(t *tx) error {
		c, err := t.command(id)
		if err != nil || !c.Out(e) {
			return err
		}
		return t.putCommand(c.NotWritten(e), now)
	})
}

// TokenMissing notes why a register_runner has no token.
func (db *DB) TokenMissing(ctx context.Context, vm fleet.VMID, why string, now time.Time) (news bool, err error) {
	if v, err := db.VM(ctx, vm); err != nil || v.TokenWait.Why == why {
		return false, err
	}
	return true, db.update(ctx, func(t *tx) error {
		v, err := t.vm(vm)
		if err != nil {
			return err
		}
		v.TokenWait = v.TokenWait.Failed(why, now)
		t.putVM(v, now)
		return nil
	})
}

// delivery is the attempt as the VM's state allows it.
func delivery(v fleet.VM, a store.Attempt) (fleet.Delivery, error) {
	switch {
	case a.Via == fleet.Stream && a.Epoch != v.Epoch:
		return fleet.Delivery{}, fleet.ErrSuperseded
	case a.Via == fleet.HTTP && v.Connected:
		return fleet.Delivery{}, fleet.ErrNothingDue
	default:
		return fleet.Delivery{Via: a.Via, Epoch: v.Epoch, Boot: v.Boot, At: a.At}, nil
	}
}

// Ack records an agent's answer.
func (db *DB) Ack(ctx context.Context, vm fleet.VMID, e fleet.Epoch, a fleet.Ack, now time.Time) (
	c fleet.Command, late bool, err error,
) {
	err = db.update(ctx, func(t *tx) error {
		v, err := t.vm(vm)
		if err != nil {
			return err
		}
		if v.Epoch != e && !now.Before(v.ConnectedAt) {
			return fleet.ErrSuperseded
		}
		if c, err = t.commandOf(vm, a.CommandID); err != nil {
			return err
		}
		if c.VM != vm {
			return fleet.ErrNotFound
		}
		late = c.State.Terminal()
		repeated := late && c.Ack != nil
		if c, err = c.Acked(a, now); err != nil || repeated || c.Ack == nil {
			return err // or nothing is kept of it
		}
		if v.Epoch == e {
			v.LastSeenAt = now
		}
		v.LastAckAt = now
		if late {
			t.putVM(v, now)
		} else { // when the command ended tells it
			t.putHeard(v, now)
		}
		return t.putCommand(c, now)
	})
	return c, late, err
}

// Sweep ends the commands whose time is up.
func (db *DB) Sweep(ctx context.Context, now time.Time, lastMessageAt store.LastMessageAt, limit int) (int, error) {
	if err := db.writeQuiet(ctx, now); err != nil {
		return 0, err
	}
	due, err := db.commands(ctx,
		`SELECT seq, doc FROM commands WHERE due_at <= ? ORDER BY due_at LIMIT ?`, now.UnixNano(), limit)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	err = db.update(ctx, func(t *tx) error {
		for _, d := range due {
			if err := t.lapse(d.ID, now, lastMessageAt); err != nil {
				return err
			}
		}
		return nil
	})
	return len(due), err
}

// lapse ends a command if its time is up, or puts that off. It reads the command
// again: it may have moved on since.
func (t *tx) lapse(id fleet.CommandID, now time.Time, lastMessageAt store.LastMessageAt) error {
	c, err := t.command(id)
	if err != nil {
		return err
	}
	v, err := t.vm(c.VM)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return err
	}
	switch lapsed := c.Lapsed(now, lastMessageAt(c), v); {
	case lapsed.State != c.State:
		return t.putCommand(lapsed, now)
	case !lapsed.DueAt.Equal(c.DueAt): // no change that anybody wants to know of
		_, err := t.writeCommand(lapsed)
		return err
	default:
		return nil
	}
}
