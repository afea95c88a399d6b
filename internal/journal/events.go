package journal

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

const (
	// chunkSize is how many events are written concurrently. Each holds a directory open.
	chunkSize = 64
	// syncers is how many wait for the disk at a time: file systems commit concurrent syncs
	// together.
	syncers = 16
)

// WriteEvents writes each event to its own file, in order, and returns how many are done
// and the first error. The files of those survive a power loss; the caller retries the
// others later, beginning with the next one.
//
// An event whose file already exists counts as done and its file is not changed, so events
// may be written again after a crash. An event whose VM is over its budget counts as done
// without a file. An event with invalid ids gets a *fleet.FieldError however often it is
// retried.
//
// While too little space is free it writes nothing and returns ErrPaused.
//
// Concurrent calls wait for each other.
func (j *Journal) WriteEvents(ctx context.Context, es []fleet.Event) (int, error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	done := 0
	for chunk := range slices.Chunk(es, chunkSize) {
		if !j.space.enough() {
			return done, ErrPaused
		}
		n, err := j.writeChunk(ctx, chunk)
		done += n
		if err != nil {
			if ctx.Err() == nil {
				j.metrics.failedEvents.Inc()
			}
			return done, fmt.Errorf("journal: write event %d of %d: %w", done+1, len(es), err)
		}
	}
	return done, nil
}

// writeChunk writes the contents concurrently, then gives the files their names in order,
// then makes the names durable.
func (j *Journal) writeChunk(ctx context.Context, es []fleet.Event) (int, error) {
	j.dirs.RLock()
	defer j.dirs.RUnlock()
	drafts, errs := make([]*draft, len(es)), make([]error, len(es))
	at := j.receivedAt(es)
	var drafting errgroup.Group
	drafting.SetLimit(syncers)
	for i, e := range es {
		drafting.Go(func() error {
			drafts[i], errs[i] = j.draftEvent(ctx, e, at[i])
			return nil
		})
	}
	_ = drafting.Wait() // the errors are checked in order
	defer func() {
		for _, d := range drafts {
			if d != nil {
				d.close()
			}
		}
	}()
	placed, written, err := placeInOrder(drafts, errs)
	if syncErr := j.syncNames(es[:placed], drafts[:placed]); syncErr != nil {
		return 0, syncErr
	}
	j.metrics.events.Add(float64(written))
	for _, d := range drafts[:placed] {
		if d == nil {
			j.metrics.eventsOverBudget.Inc()
		}
	}
	return placed, err
}

// draftEvent returns nil for an event that gets no file.
func (j *Journal) draftEvent(ctx context.Context, e fleet.Event, at time.Time) (*draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	content := readable(e.Body)
	if !j.affords(e, len(content), at) {
		return nil, nil //nolint:nilnil // as documented
	}
	return j.draft(e.VM, eventName(e), content, true)
}

// receivedAt returns when the events were received, for their budget.
func (j *Journal) receivedAt(es []fleet.Event) []time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := make([]time.Time, len(es))
	j.eventBudget.begin(es[0].Seq)
	for i, e := range es {
		at[i] = j.eventBudget.at(e.ReceivedAt)
	}
	return at
}

// affords reports whether the file of an event is within the budget of its VM.
func (j *Journal) affords(e fleet.Event, size int, at time.Time) bool {
	j.mu.Lock()
	ok, newlyOver := j.eventBudget.spend(e, size, at)
	j.mu.Unlock()
	if newlyOver {
		j.log.Warn("event files skipped: the VM is over its budget", logkey.VM, string(e.VM))
	}
	return ok
}

// placeInOrder stops at the first error. It returns how many files have their name, and how
// many of those got it now.
func placeInOrder(drafts []*draft, errs []error) (placed int, written uint64, err error) {
	for i, d := range drafts {
		if errs[i] != nil {
			return placed, written, errs[i]
		}
		if d == nil {
			placed++
			continue
		}
		wrote, err := d.place()
		if err != nil {
			return placed, written, err
		}
		placed++
		if wrote {
			written++
		}
	}
	return placed, written, nil
}

// syncNames syncs the directories of the files, and their parent. A file that already
// existed may have been created just before a crash, so its directory is synced as well.
func (j *Journal) syncNames(es []fleet.Event, drafts []*draft) error {
	if len(drafts) == 0 {
		return nil
	}
	var syncs errgroup.Group
	syncs.SetLimit(syncers)
	syncs.Go(func() error { return syncDir(j.root) })
	seen := make(map[fleet.VMID]bool, len(es))
	for i, d := range drafts {
		if d != nil && !seen[es[i].VM] {
			seen[es[i].VM] = true
			syncs.Go(func() error { return syncDir(d.dir) })
		}
	}
	if err := syncs.Wait(); err != nil {
		return fmt.Errorf("sync a directory: %w", err)
	}
	return nil
}
