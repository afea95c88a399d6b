package dispatch

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// endBatch is how many ends of sessions are recorded at a time.
const endBatch = 100

// unended holds the ends of sessions that could not be stored yet, at most
// one a VM. Without them a VM whose stream ended while the store was unavailable
// would count as connected, and so get nothing when it polls.
type unended struct {
	mu       sync.Mutex
	sessions map[fleet.VMID]ending
}

type ending struct {
	vm      fleet.VMID
	epoch   fleet.Epoch
	written fleet.CommandID // the last that was
	at      time.Time
}

func (u *unended) put(e ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.epoch >= u.sessions[e.vm].epoch {
		u.sessions[e.vm] = e
	}
}

// some returns endBatch of them at most.
func (u *unended) some() []ending {
	u.mu.Lock()
	defer u.mu.Unlock()
	var some []ending
	for _, e := range u.sessions {
		if len(some) == endBatch {
			break
		}
		some = append(some, e)
	}
	return some
}

// done forgets an end that is recorded.
func (u *unended) done(e ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions[e.vm].epoch == e.epoch {
		delete(u.sessions, e.vm)
	}
}

// written returns the last command that was written on the session of the VM whose
// end waits; empty for none.
func (u *unended) written(vm fleet.VMID) fleet.CommandID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sessions[vm].written
}

// lastWritten returns the last command that was written on the newest session of
// the VM, if its end is not recorded; empty for none.
func (d *Dispatcher) lastWritten(vm fleet.VMID) fleet.CommandID {
	if s := d.registry.session(vm); s != nil {
		return s.lastWritten()
	}
	return d.unended.written(vm)
}

// recordEnd records the end of a session, later if the store is unavailable.
func (d *Dispatcher) recordEnd(ctx context.Context, e ending) error {
	_, err := d.Engine.Apply(ctx, fleet.SessionClosed{VM: e.vm, Epoch: e.epoch, Written: e.written}, e.at)
	if err == nil || errors.Is(err, fleet.ErrNotFound) {
		d.unended.done(e)
		return nil // a VM that is no longer known has no session
	}
	d.unended.put(e)
	if !errors.Is(err, context.Canceled) {
		d.limited(d.Log, troubleUnended, "").
			Error("session end not recorded, trying again", keyVM, e.vm, keyEpoch, e.epoch, keyError, err)
	}
	return err
}

// recordEnds records the ends that wait, concurrently so that they share
// commits.
func (d *Dispatcher) recordEnds(ctx context.Context) error {
	for {
		some := d.unended.some()
		if len(some) == 0 {
			return nil
		}
		errs := make([]error, len(some))
		var calls sync.WaitGroup
		for i, e := range some {
			calls.Go(func() { errs[i] = d.recordEnd(ctx, e) })
		}
		calls.Wait()
		if err := cmp.Or(errs...); err != nil {
			return err
		}
	}
}
