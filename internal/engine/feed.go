package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// feedLength is how many of the latest changes the feed holds at least; readers of
	// earlier ones use the driver.
	feedLength = 1024
	// feedBatch is how many changes of other writers are read at a time.
	feedBatch = 500
	// retryRead is the delay before a failed read is retried.
	retryRead = time.Second
)

// feed holds the latest durable changes, in order and without gaps. Its own engine adds
// what it commits; the commits of other writers are read from the driver, once for all
// listeners.
type feed struct {
	engine    *Engine
	log       *slog.Logger
	listeners listeners[func([]fleet.Change)]
	unlisten  func()
	reported  atomic.Int64  // the latest change that the driver has reported
	more      chan struct{} // capacity 1: there may be changes of other writers
	stopping  chan struct{}
	done      chan struct{}

	// adding is held while changes are added, and by the engine from before a commit until
	// its changes are added.
	adding     sync.Mutex
	committing atomic.Bool
	failing    bool        // the last read of other writers' changes failed
	retry      *time.Timer // nil before the first failure

	mu     sync.RWMutex
	recent []fleet.Change // the last of them is the latest
	last   int64
}

func newFeed(e *Engine, last int64) *feed {
	f := &feed{
		engine: e, log: e.Log, last: last,
		more: make(chan struct{}, 1), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	f.unlisten = e.Driver.Listen(f.notify)
	go f.loop()
	return f
}

func (f *feed) close() {
	f.unlisten()
	close(f.stopping)
	<-f.done
	f.adding.Lock()
	defer f.adding.Unlock()
	if f.retry != nil {
		f.retry.Stop()
	}
}

// notify is called by the driver with the number of the latest change.
func (f *feed) notify(last int64) {
	f.reported.Store(last)
	if !f.committing.Load() { // otherwise endCommit is about to add the changes
		f.wake()
	}
}

func (f *feed) wake() {
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// loop reads the commits of other writers.
func (f *feed) loop() {
	defer close(f.done)
	for {
		select {
		case <-f.more:
		case <-f.stopping:
			return
		}
		f.adding.Lock()
		f.catchUp()
		f.adding.Unlock()
	}
}

// beginCommit announces a commit of the feed's own engine; endCommit or abortCommit must
// follow.
func (f *feed) beginCommit() {
	f.adding.Lock()
	f.committing.Store(true)
}

// abortCommit ends a commit that has failed.
func (f *feed) abortCommit() { f.endCommit(nil) }

// endCommit adds the changes of a commit of the feed's own engine.
func (f *feed) endCommit(changes []fleet.Change) {
	defer f.adding.Unlock()
	f.committing.Store(false)
	if len(changes) > 0 && changes[0].Seq == f.lastChange()+1 {
		f.add(changes, changes[len(changes)-1].Seq)
	}
	if f.reported.Load() > f.lastChange() {
		f.catchUp()
	}
}

// catchUp adds the driver's changes after the latest known one. The caller holds adding.
func (f *feed) catchUp() {
	for f.reported.Load() > f.lastChange() {
		changes, _, err := f.engine.storedChanges(context.Background(), store.ChangeQuery{After: f.lastChange()}, feedBatch)
		if errors.Is(err, store.ErrPurged) { // readers get the same error
			f.log.Warn("changes of other writers were purged before they were read, or are damaged")
			f.engine.cache.invalidateAll()
			f.skip(f.reported.Load())
			return
		}
		if err != nil {
			f.failed(err)
			return
		}
		f.failing = false
		if len(changes) == 0 {
			return
		}
		for _, c := range changes {
			f.engine.cache.invalidate(c.Subject)
		}
		f.add(changes, changes[len(changes)-1].Seq)
	}
}

// failed schedules a retry of a failed read.
func (f *feed) failed(err error) {
	if !f.failing {
		f.failing = true
		f.log.Warn("changes of other writers not read, trying again", logkey.Error, err)
	}
	if f.retry == nil {
		f.retry = time.AfterFunc(retryRead, f.wake)
	} else {
		f.retry.Reset(retryRead)
	}
}

// skip skips all changes up to this one.
func (f *feed) skip(last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent, f.last = nil, last
}

// add adds changes, up to the number last, and calls the listeners.
func (f *feed) add(changes []fleet.Change, last int64) {
	f.mu.Lock()
	if f.recent = append(f.recent, changes...); len(f.recent) > 2*feedLength {
		f.recent = slices.Clone(f.recent[len(f.recent)-feedLength:])
	}
	f.last = last
	f.mu.Unlock()
	if len(changes) == 0 {
		return
	}
	f.listeners.each(func(fn func([]fleet.Change)) { fn(changes) })
}

func (f *feed) lastChange() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.last
}

// since returns the changes that match q, at most limit, whether there are more, and
// whether the feed has them all.
func (f *feed) since(q store.ChangeQuery, limit int) (changes []fleet.Change, more, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if q.After < f.last && (len(f.recent) == 0 || q.After < f.recent[0].Seq-1) {
		return nil, false, false
	}
	i, _ := slices.BinarySearchFunc(f.recent, q.After+1, func(c fleet.Change, seq int64) int { return cmp.Compare(c.Seq, seq) })
	for _, c := range f.recent[i:] {
		if q.VM != "" && string(c.Subject) != q.VM ||
			len(q.Pools) > 0 && !slices.Contains(q.Pools, c.Pool) && !slices.Contains(q.Pools, c.Left) {
			continue
		}
		if len(changes) == limit {
			return changes, true, true
		}
		changes = append(changes, c)
	}
	return changes, false, true
}

// Changes lists durable changes, oldest first, as VMs does. It returns
// fleet.ErrCursorExpired when some of the changes after q.After are no longer kept.
func (e *Engine) Changes(ctx context.Context, q store.ChangeQuery, limit int) (changes []fleet.Change, more bool, err error) {
	if changes, more, ok := e.feed.since(q, limit); ok {
		return changes, more, nil
	}
	last := e.feed.lastChange()
	changes, more, err = e.storedChanges(ctx, q, limit)
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	if n := len(changes); n > 0 && changes[n-1].Seq >= last {
		more = false
	}
	// Readers get no change before the listeners.
	return slices.DeleteFunc(changes, func(c fleet.Change) bool { return c.Seq > last }), more, nil
}

// storedChanges lists changes from the driver. For readers that start before a damaged
// change, it counts as purged.
func (e *Engine) storedChanges(ctx context.Context, q store.ChangeQuery, limit int) (changes []fleet.Change, more bool, err error) {
	err = e.undamaged(ctx, func() (err error) {
		var rows []store.ChangeRow
		if rows, more, err = e.Driver.Changes(ctx, q, limit); err != nil {
			return err
		}
		changes, err = decoded(rows, placesOfChange, decodeChange)
		return err
	})
	return changes, more, err
}

// LastChange returns the Seq of the latest durable change; zero when there is none.
func (e *Engine) LastChange() int64 { return e.feed.lastChange() }
