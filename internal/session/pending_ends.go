package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// endBatch is how many ends of sessions are recorded at a time.
const endBatch = 100

// pendingEnds holds the ends of sessions that could not be stored yet, at most one per VM.
// Without them a VM whose stream ended while the store was unavailable would count as
// connected, and its polls would get no commands.
type pendingEnds struct {
	mu       sync.Mutex
	sessions map[fleet.VMID]ending
}

type ending struct {
	vm      fleet.VMID
	epoch   fleet.Epoch
	written fleet.CommandID // the latest command that was written
	at      time.Time
}

func (u *pendingEnds) put(e ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.epoch >= u.sessions[e.vm].epoch {
		u.sessions[e.vm] = e
	}
}

// some returns at most endBatch of them.
func (u *pendingEnds) some() []ending {
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

// done forgets an end that has been recorded.
func (u *pendingEnds) done(e ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions[e.vm].epoch == e.epoch {
		delete(u.sessions, e.vm)
	}
}

// written returns the latest command that was written on the session of the VM whose end is
// not stored; empty if there is none.
func (u *pendingEnds) written(vm fleet.VMID) fleet.CommandID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sessions[vm].written
}

// lastWritten returns the latest command that was written on the newest session of the VM,
// unless its end is recorded; empty if there is none. It takes no lock of a session.
func (r *Registry) lastWritten(vm fleet.VMID) fleet.CommandID {
	if s := r.sessions.of(vm); s != nil {
		return s.lastWritten()
	}
	return r.pendingEnds.written(vm)
}

// recordEnd records the end of a session, or keeps it for RecordEnds if that fails.
func (r *Registry) recordEnd(ctx context.Context, e ending) error {
	_, err := r.Engine.Apply(ctx, fleet.SessionClosed{VM: e.vm, Epoch: e.epoch, Written: e.written}, e.at)
	if err == nil || errors.Is(err, fleet.ErrNotFound) {
		r.pendingEnds.done(e)
		return nil // an unknown VM has no session
	}
	r.pendingEnds.put(e)
	if !errors.Is(err, context.Canceled) {
		r.limited(r.Log, logEndNotRecorded, "").
			Error("session end not recorded, trying again", logkey.VM, e.vm, logkey.Epoch, e.epoch, logkey.Error, err)
	}
	return err
}

// RecordEnds records the ends of sessions that could not be stored before, concurrently so
// that they share commits.
func (r *Registry) RecordEnds(ctx context.Context) error {
	for {
		some := r.pendingEnds.some()
		if len(some) == 0 {
			return nil
		}
		calls, ctx := errgroup.WithContext(ctx)
		for _, e := range some {
			calls.Go(func() error { return r.recordEnd(ctx, e) })
		}
		if err := calls.Wait(); err != nil {
			return err
		}
	}
}
