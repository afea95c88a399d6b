package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	open, err := t.queue(v.ID, now)
	if err != nil {
		return err
	}
	for _, c := range open {
		proven, err := c.Proven(evidence, now)
		if err != nil || c.Type != fleet.RegisterRunner {
			continue // a command that is not out needs no proof
		}
		t.putVM(v, now) // for putCommand to go on from
		return t.putCommand(proven, now)
	}
	return nil
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
	order := make([]int, len(hs)) // by VM, and as they came
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(string(hs[i].VM), string(hs[j].VM)) })
	return db.update(ctx, func(t *tx) error {
		b := block{docs: slices.Grow(t.w.spare.buffer(), bytesPerBeat*len(hs))}
		defer func() { t.w.spare.keepBuffer(b.docs) }()
		for rest := order; len(rest) > 0; {
			n := 1
			for n < len(rest) && hs[rest[n]].VM == hs[rest[0]].VM {
				n++
			}
			if err := t.heartbeats(&b, hs, rest[:n], register); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return t.addBlock(b)
	})
}

// heartbeats takes those of the heartbeats that are of one VM.
func (t *tx) heartbeats(
	b *block, hs []fleet.Heartbeat, of []int, register func(fleet.VMID) fleet.Command,
) error {
	first := &hs[of[0]]
	v, err := t.vmOrNew(first.VM, first.ReceivedAt)
	if err != nil {
		return err
	}
	var before *fleet.Heartbeat
	for _, i := range of {
		h := &hs[i]
		if v.Stale(h.Origin) {
			continue
		}
		if err := b.add(t.vms[h.VM], h, before); err != nil {
			return err
		}
		if v, err = t.heartbeat(v, *h, register); err != nil {
			return err
		}
		before = h
	}
	if before != nil {
		t.putHeard(v, before.ReceivedAt)
	}
	return nil
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
