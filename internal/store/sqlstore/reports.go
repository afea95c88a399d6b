package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// RecordEvent keeps an event and what it shows of its VM.
func (db *DB) RecordEvent(
	ctx context.Context, e fleet.Event, register fleet.Command,
) (v fleet.VM, kept fleet.Event, err error) {
	err = db.update(ctx, func(t *tx) error {
		if v, err = t.vmOrNew(e.VM, e.ReceivedAt); err != nil {
			return err
		}
		if kept, err = t.addEvent(e); err != nil || v.Stale(e.Origin) {
			return err
		}
		if v, err = t.eventSeen(v.Seen(e.Origin), e, register); err != nil {
			return err
		}
		t.putVM(v, e.ReceivedAt)
		return nil
	})
	return v, kept, err
}

// eventSeen draws the conclusions of an event for its VM.
func (t *tx) eventSeen(v fleet.VM, e fleet.Event, register fleet.Command) (fleet.VM, error) {
	switch e.Type {
	case fleet.EventVMStarted:
		registering, err := t.registering(v)
		if err != nil {
			return v, err
		}
		v = v.Started(e, registering)
		if !v.Connected {
			return v, nil
		}
		return t.requestRegistration(v, register)
	case fleet.EventRunnerRegistered:
		v = v.RegistrationProven(e.ReceivedAt)
		return v, t.prove(v, "proven by the event runner_registered", e.ReceivedAt)
	default:
		return v, nil
	}
}

// prove ends the VM's register_runner that is out: agents may lose an ack, and
// those that poll send none.
func (t *tx) prove(v fleet.VM, evidence string, now time.Time) error {
	c, err := t.head(v.ID)
	if errors.Is(err, fleet.ErrNothingDue) {
		return nil
	}
	if err != nil {
		return err
	}
	proven, err := c.Proven(evidence, now)
	if err != nil || c.Type != fleet.RegisterRunner {
		return nil //nolint:nilerr // a command that is not out needs no proof
	}
	t.putVM(v, now) // for putCommand to go on from
	return t.putCommand(proven, now)
}

func (t *tx) addEvent(e fleet.Event) (fleet.Event, error) {
	doc, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("write event: %w", err)
	}
	e.Seq, err = t.insert(`INSERT INTO events (vm_id, type, received_at, doc) VALUES (?, ?, ?, ?)`,
		string(e.VM), e.Type, e.ReceivedAt.UnixNano(), doc)
	if err != nil {
		return e, fmt.Errorf("write event: %w", err)
	}
	err = t.change(fleet.Change{At: e.ReceivedAt, Subject: e.VM, Event: &e}, nil, nil, e.Seq)
	return e, err
}

// RecordHeartbeats keeps heartbeats and what they show of their VMs.
func (db *DB) RecordHeartbeats(
	ctx context.Context, hs []fleet.Heartbeat, register func(fleet.VMID) fleet.Command,
) error {
	var order []fleet.VMID
	byVM := map[fleet.VMID][]fleet.Heartbeat{}
	for _, h := range hs {
		if byVM[h.VM] == nil {
			order = append(order, h.VM)
		}
		byVM[h.VM] = append(byVM[h.VM], h)
	}
	return db.update(ctx, func(t *tx) error {
		for _, vm := range order {
			if err := t.heartbeats(vm, byVM[vm], register); err != nil {
				return err
			}
		}
		return nil
	})
}

// heartbeats takes the heartbeats of one VM.
func (t *tx) heartbeats(id fleet.VMID, hs []fleet.Heartbeat, register func(fleet.VMID) fleet.Command) error {
	v, err := t.vmOrNew(id, hs[0].ReceivedAt)
	if err != nil {
		return err
	}
	var docs []byte
	var last time.Time
	for i, h := range hs {
		if v.Stale(h.Origin) {
			continue
		}
		if len(docs) > 0 && h.Repeats(hs[i-1]) {
			docs = h.AppendLoadJSON(docs)
		} else if docs, err = h.AppendJSON(docs); err != nil {
			return fmt.Errorf("write heartbeat: %w", err)
		}
		docs = append(docs, '\n')
		if v, err = t.heartbeat(v, h, register); err != nil {
			return err
		}
		last = h.ReceivedAt
	}
	if len(docs) == 0 {
		return nil
	}
	t.putHeard(v, last)
	e := t.vms[id]
	e.row.lastBeat, err = t.insert(`INSERT INTO heartbeats (vm_id, previous, received_at, docs) VALUES (?, ?, ?, ?)`,
		string(id), e.row.lastBeat, last.UnixNano(), docs)
	return err
}

func (t *tx) heartbeat(
	v fleet.VM, h fleet.Heartbeat, register func(fleet.VMID) fleet.Command,
) (fleet.VM, error) {
	registering, err := t.registering(v)
	if err != nil {
		return v, err
	}
	before := v.Registration
	v = v.Heartbeat(h, registering)
	switch {
	case v.Registration.State == fleet.Unregistered && before.State != fleet.Unregistered && v.Connected:
		return t.requestRegistration(v, register(v.ID))
	case registering && v.Registration.State == fleet.Registered:
		return v, t.prove(v, "proven by a heartbeat of a configured runner", h.ReceivedAt)
	default:
		return v, nil
	}
}

// UnjournaledEvents returns events that are not yet marked, oldest first.
func (db *DB) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	return db.events(ctx, `SELECT seq, doc FROM events
		WHERE seq > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'journaled_event')
		ORDER BY seq LIMIT ?`, limit)
}

// MarkJournaled marks events up to seq as written to the journal.
func (db *DB) MarkJournaled(ctx context.Context, seq int64) error {
	return db.update(ctx, func(t *tx) error {
		return t.exec(`UPDATE meta SET value = ? WHERE key = 'journaled_event'`, seq)
	})
}
