package sqlstore

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// OpenSession gives the VM its next session.
func (db *DB) OpenSession(
	ctx context.Context, h fleet.Hello, register fleet.Command, written func() fleet.CommandID, now time.Time,
) (v fleet.VM, err error) {
	err = db.update(ctx, func(t *tx) error {
		if v, err = t.vmOrNew(h.VM, now); err != nil {
			return err
		}
		if v.Connected {
			if err := t.endDeliveries(v, written(), now); err != nil {
				return err
			}
			if v, err = t.vm(h.VM); err != nil { // as that has left it
				return err
			}
		}
		v, err = t.requestRegistration(v.SessionOpened(h, now), register)
		if err != nil {
			return err
		}
		t.putVM(v, now)
		return nil
	})
	return v, err
}

// RequestRegistration enqueues register for a VM that polls.
func (db *DB) RequestRegistration(
	ctx context.Context, vm fleet.VMID, register fleet.Command, now time.Time,
) (v fleet.VM, err error) {
	err = db.update(ctx, func(t *tx) error {
		if v, err = t.vmOrNew(vm, now); err != nil {
			return err
		}
		v.LastSeenAt = now
		if v, err = t.requestRegistration(v, register); err != nil {
			return err
		}
		t.putVM(v, now)
		return nil
	})
	return v, err
}

// requestRegistration has a VM registered that is not yet in this boot: by the
// register_runner that is already on its way to it, or else by register.
func (t *tx) requestRegistration(v fleet.VM, register fleet.Command) (fleet.VM, error) {
	if v.Registration.State != fleet.Unregistered {
		return v, nil
	}
	cmd, err := t.oneCommand(`SELECT seq, doc FROM commands
		WHERE vm_id = ? AND due_at IS NOT NULL AND type = ? ORDER BY seq LIMIT 1`,
		string(v.ID), fleet.RegisterRunner)
	if errors.Is(err, fleet.ErrNotFound) {
		cmd, err = t.addCommand(register, register)
	}
	if err != nil {
		return v, err
	}
	return v.RegistrationRequested(cmd), nil
}

// registering reports whether the VM's register_runner is on its way.
func (t *tx) registering(v fleet.VM) (bool, error) {
	if v.Registration.State != fleet.Requested {
		return false, nil
	}
	c, err := t.command(v.Registration.Command)
	if errors.Is(err, fleet.ErrNotFound) {
		return false, nil
	}
	return err == nil && !c.State.Terminal(), err
}

// CloseSession ends a session.
func (db *DB) CloseSession(
	ctx context.Context, vm fleet.VMID, e fleet.Epoch, written fleet.CommandID, now time.Time,
) error {
	return db.update(ctx, func(t *tx) error {
		v, err := t.vm(vm)
		if err != nil {
			return err
		}
		closed := v.SessionClosed(e, now)
		if !v.Connected || closed.Connected {
			return nil // it was superseded, or has ended before
		}
		t.putVM(closed, now)
		return t.endDeliveries(closed, written, now)
	})
}

// endDeliveries ends those of the newest session of v, which is over: what was
// written last counts, and what was claimed since was not delivered.
func (t *tx) endDeliveries(v fleet.VM, written fleet.CommandID, now time.Time) error {
	open, err := t.queue(v.ID, now)
	if err != nil {
		return err
	}
	for _, c := range open {
		if c.Out(v.Epoch) && c.ID != written {
			err = t.putCommand(c.NotWritten(v.Epoch), now)
		} else {
			err = t.sessionEnded(c, v.Epoch, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sessionEnded takes the end of the sessions up to e for a command.
func (t *tx) sessionEnded(c fleet.Command, e fleet.Epoch, now time.Time) error {
	ended := c.SessionEnded(e, now)
	if ended.State == c.State && ended.DueAt.Equal(c.DueAt) {
		return nil
	}
	return t.putCommand(ended, now)
}

// ResetSessions ends all sessions.
func (db *DB) ResetSessions(ctx context.Context, now time.Time) (n int, err error) {
	vms, err := db.vms(ctx, `SELECT doc FROM vms WHERE connected = 1 ORDER BY vm_id`)
	if err != nil || len(vms) == 0 {
		return 0, err
	}
	out, err := db.commands(ctx, `SELECT seq, doc FROM commands WHERE state = ? AND `+isOpen, string(fleet.Delivered))
	if err != nil {
		return 0, err
	}
	beats, err := db.lastParts(ctx)
	if err != nil {
		return 0, err
	}
	acks, err := db.lastAcks(ctx)
	if err != nil {
		return 0, err
	}
	err = db.update(ctx, func(t *tx) error {
		for _, v := range vms {
			v, err := t.caughtUp(v.ID, beats[v.ID], acks[v.ID])
			if err != nil {
				return err
			}
			t.putVM(v.SessionClosed(v.Epoch, now), now)
		}
		for _, c := range out {
			if err := t.sessionEnded(c, math.MaxInt64, now); err != nil {
				return err
			}
		}
		return nil
	})
	return len(vms), err
}
