package control

import (
	"context"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// quietPeriod is the longest time between two updates of a watch.
	quietPeriod = 30 * time.Second
	// watchBatch is how many changes a watch reads at a time, if they are not large.
	watchBatch = 500
)

// Update is what a watch sends.
type Update struct {
	// Cursor is the position of the watch after this update. It is opaque.
	Cursor string
	// Change is nil for an update with only a cursor.
	Change *fleet.Change
	// Removed is whether the change took its VM out of the caller's pools. The change then
	// has only the numbers and the names: Seq, At and Subject.
	Removed bool
}

// Watch sends the changes of the fleet, or of one VM if vm is not empty: first an update
// with only a cursor, then every change after it, in order and once each, and an update
// with only a cursor after 30 seconds without any. An empty cursor begins now; any other,
// right after the update that it was part of.
//
// A limited caller gets the changes of VMs that were in its pools right after the change. The
// change by which a VM leaves them is sent once, as a removal; what happens to the VM before it
// returns is not. A VM that enters is shown by the change by which it does. All of that is part
// of the log: it is the same for a watch that resumes later. The cursor is of no use to a
// caller with other pools. VMs that retention removes are no changes, for any caller.
//
// Watch returns when ctx has ended, send returns an error or the Control is closed. It
// reads only as fast as send accepts, so a slow watcher delays only itself. Errors: a
// *fleet.FieldError for the cursor or the vm_id, fleet.ErrCursorExpired,
// fleet.ErrUnavailable, and those of ctx and send.
func (c *Control) Watch(ctx context.Context, cursor, vm string, send func(Update) error) error {
	if err := fleet.CheckOptionalID("vm_id", vm); err != nil {
		return err
	}
	r := reachOf(ctx)
	w := watch{Control: c, vm: fleet.VMID(vm), send: send, reach: r, scope: r.seal(c.engine.ID(), "cursor")}
	if err := w.begin(ctx, cursor); err != nil {
		return err
	}
	woken, leave := c.watches.join(w.vm)
	defer leave()
	w.position.Store(w.at)
	defer c.metrics.positions.add(&w.position)()
	return w.run(ctx, woken)
}

// watch is one call of Watch.
type watch struct {
	*Control
	vm    fleet.VMID
	reach reach
	scope string
	send  func(Update) error
	// at is the Seq up to which everything has been sent or skipped.
	at int64
	// position is at, once that has been sent, for the metrics.
	position position
}

// begin determines where to begin, and checks that all later changes are still kept.
func (w *watch) begin(ctx context.Context, cursor string) error {
	last := w.engine.LastChange()
	w.at = last
	if cursor == "" {
		return nil
	}
	seq, ok := unsealSeq(w.scope, cursor)
	if !ok {
		return fleet.Invalid("cursor", "must be empty or the cursor of an answer from this controller's store to a caller with the same pools")
	}
	if seq > last {
		return fleet.Invalid("cursor", "must not be later than the last change: an older state of the store was restored")
	}
	w.at = seq
	_, _, err := w.read(ctx, 1)
	return err
}

// run sends updates until the watch ends.
func (w *watch) run(ctx context.Context, woken <-chan int64) error {
	if err := w.update(ctx, nil); err != nil {
		return err
	}
	quiet := time.NewTimer(quietPeriod)
	defer quiet.Stop()
	for due := false; ; {
		sent, err := w.catchUp(ctx)
		if err != nil {
			return err
		}
		if due && !sent {
			w.position.Store(w.at)
			if err := w.update(ctx, nil); err != nil {
				return err
			}
		}
		if due || sent {
			quiet.Reset(quietPeriod)
		}
		w.position.Store(caughtUp)
		select {
		case next := <-woken:
			if w.vm != "" {
				w.at = max(w.at, next-1) // the changes in between are of other VMs
			}
			w.position.Store(w.at)
			due = false
		case <-quiet.C:
			due = true
		case <-ctx.Done():
			return ctx.Err()
		case <-w.closed:
			return fleet.ErrStopping
		}
	}
}

// catchUp sends all existing changes, and reports whether there were any.
func (w *watch) catchUp(ctx context.Context) (sent bool, err error) {
	for {
		last := w.at
		if w.vm != "" || w.reach.limited() {
			// Read before the changes: those made in between may be of interest.
			last = w.engine.LastChange()
		}
		changes, more, err := w.read(ctx, watchBatch)
		if err != nil {
			return sent, err
		}
		for i := range changes {
			w.at = changes[i].Seq
			if err := w.update(ctx, &changes[i]); err != nil {
				return sent, err
			}
			sent = true
			w.position.Store(w.at)
		}
		if len(changes) == 0 {
			w.at = max(w.at, last)
		}
		if !more {
			return sent, nil
		}
	}
}

func (w *watch) read(ctx context.Context, limit int) (changes []fleet.Change, more bool, err error) {
	pools, ok := w.reach.pools()
	if !ok {
		return nil, false, nil
	}
	changes, more, err = w.engine.Changes(ctx, store.ChangeQuery{VM: string(w.vm), Pools: pools, After: w.at}, limit)
	if err != nil {
		return nil, false, fmt.Errorf("watch: %w", err)
	}
	return changes, more, nil
}

// update sends one update, unless the watch must end.
func (w *watch) update(ctx context.Context, change *fleet.Change) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closed:
		return fleet.ErrStopping
	default:
		return w.send(w.show(change))
	}
}

// show returns an update with what the caller may see of a change that was read.
func (w *watch) show(change *fleet.Change) Update {
	u := Update{Cursor: sealSeq(w.scope, w.at), Change: change}
	if change != nil && w.reach.limited() && !w.reach.scope.Has(change.Pool) {
		u.Change, u.Removed = &fleet.Change{Seq: change.Seq, At: change.At, Subject: change.Subject}, true
	}
	return u
}
