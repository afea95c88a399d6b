package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

const (
	// beatWindow is how long the first heartbeat of a group waits for others, including the
	// time in which the previous group is stored. With the commit it stays under 100 ms, for
	// which a crash may lose heartbeats.
	beatWindow = 50 * time.Millisecond
	// maxBeats and maxBeatVMs limit a group to so many heartbeats and so many VMs. At about 12
	// µs for the first of a VM (BenchmarkHeartbeats) and 2 µs for each further one, a group is
	// stored in 20 ms, and usually in 30 ms even when many change the records of their VMs.
	maxBeats   = 5000
	maxBeatVMs = 1000
)

// heartbeats groups heartbeats and stores each group in one transaction. While one group is
// stored the next one fills; when that is full, add blocks, and so streams are not read.
type heartbeats struct {
	registry *Registry
	begun    chan struct{} // capacity 1: the group has its first heartbeat
	full     chan struct{} // capacity 1: the group is full
	stopped  chan struct{}
	fault    atomic.Pointer[error] // error of the latest attempt to store
	giveUp   time.Time             // when flush stops retrying; only flushLoop uses it

	mu      sync.Mutex
	group   []fleet.Heartbeat
	vms     map[fleet.VMID]struct{} // of the group
	since   time.Time               // when the first heartbeat was added
	first   time.Time               // when the first heartbeat arrived
	free    []fleet.Heartbeat       // the array of the previous group, for reuse
	storing time.Time               // when the first heartbeat of the group being stored arrived; zero if there is none
	space   chan struct{}           // closed when the group begins to be stored
	closed  bool
}

func newHeartbeats(d *Registry) *heartbeats {
	return &heartbeats{
		registry: d, begun: make(chan struct{}, 1), full: make(chan struct{}, 1), stopped: make(chan struct{}),
		vms: map[fleet.VMID]struct{}{}, space: make(chan struct{}),
	}
}

// add queues a valid heartbeat and its file. If it returns nil the heartbeat will be stored,
// unless the store stays unavailable until the Registry has stopped.
func (b *heartbeats) add(ctx context.Context, h fleet.Heartbeat, render func() ([]byte, error)) error {
	if space, ok := b.put(&h); !ok {
		if err := b.wait(ctx, &h, space); err != nil {
			return err
		}
	}
	if b.registry.Journal != nil {
		b.registry.Journal.Heartbeat(h.Origin, render)
	}
	return nil
}

// wait adds to the first group that has space. Later heartbeats may overtake this one, so it
// counts as unstored on its own until then.
func (b *heartbeats) wait(ctx context.Context, h *fleet.Heartbeat, space <-chan struct{}) error {
	_, done := b.registry.unstored.add(func() time.Time { return h.ReceivedAt })
	defer done()
	for ok := false; !ok; {
		select {
		case <-space:
			space, ok = b.put(h)
		case <-ctx.Done():
			return ctx.Err()
		case <-b.stopped:
			return fleet.ErrStopping
		}
	}
	return nil
}

// put adds to the group and returns true. If the group is full, it returns a channel that is
// closed when there is space again, which never happens after stop.
func (b *heartbeats) put(h *fleet.Heartbeat) (space <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.isFull() {
		return b.space, false
	}
	b.group = append(b.group, *h)
	b.vms[h.VM] = struct{}{}
	if len(b.group) == 1 {
		b.since, b.first = time.Now(), h.ReceivedAt
		b.begun <- struct{}{} // flushLoop received the previous one before it took that group
	}
	if b.isFull() {
		b.full <- struct{}{} // take has drained it
	}
	return nil, true
}

func (b *heartbeats) isFull() bool { return len(b.group) == maxBeats || len(b.vms) == maxBeatVMs }

// take returns the group and begins the next one.
func (b *heartbeats) take() []fleet.Heartbeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	group := b.group
	if len(group) > 0 {
		b.storing = b.first
	}
	clear(b.free) // keeps the array, releases what the heartbeats point to
	b.group, b.free = b.free[:0], group
	clear(b.vms)
	select {
	case <-b.full:
	default:
	}
	close(b.space)
	b.space = make(chan struct{})
	return group
}

// stored records that the group which take returned has been stored.
func (b *heartbeats) stored() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.storing = time.Time{}
}

// oldest returns when the first heartbeat that is not stored yet arrived, or now if there is
// none.
func (b *heartbeats) oldest(now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.storing.IsZero() && b.storing.Before(now):
		return b.storing
	case len(b.group) > 0 && b.first.Before(now):
		return b.first
	default:
		return now
	}
}

// waiting returns how many heartbeats were received and are not stored yet.
func (b *heartbeats) waiting() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.group)
	if !b.storing.IsZero() {
		n += len(b.free) // the group that take returned
	}
	return float64(n)
}

// failing returns why heartbeats cannot be stored at the moment; nil if they can.
func (b *heartbeats) failing() error {
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends flushLoop after the queued heartbeats are stored. Nothing can be added afterwards.
func (b *heartbeats) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	close(b.stopped)
}

func (b *heartbeats) flushLoop() {
	for {
		select {
		case <-b.begun:
			b.gather()
			b.flush(b.take())
			b.stored()
		case <-b.stopped:
			b.flush(b.take())
			b.stored()
			return
		}
	}
}

// gather returns when the group is full or its first heartbeat has waited for beatWindow.
func (b *heartbeats) gather() {
	b.mu.Lock()
	waited := time.Since(b.since)
	b.mu.Unlock()
	window := time.NewTimer(beatWindow - waited)
	defer window.Stop()
	select {
	case <-b.full:
	case <-window.C:
	case <-b.stopped:
	}
}

// flush stores a group. While the store is unavailable it retries, until lastTries after the
// Registry began to stop.
func (b *heartbeats) flush(group []fleet.Heartbeat) {
	if len(group) == 0 {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := b.registry.Engine.RecordHeartbeats(context.Background(), group)
		if err == nil {
			if b.fault.Swap(nil) != nil {
				b.registry.limited(b.registry.Log, logHeartbeatsStored, "").Info("heartbeats stored again")
			}
			return
		}
		if !errors.Is(err, fleet.ErrUnavailable) {
			b.flushHalves(group, err)
			return
		}
		if b.givesUp() {
			b.registry.metrics.lost.Add(float64(len(group)))
			b.registry.Log.Error("heartbeats lost", logkey.Count, len(group), logkey.Error, err)
			return
		}
		if b.fault.Swap(&err) == nil {
			b.registry.limited(b.registry.Log, logHeartbeatsNotStored, "").Error("heartbeats not stored, trying again", logkey.Count, len(group), logkey.Error, err)
		}
		b.pause(wait)
	}
}

// flushHalves stores the halves of a group that cannot be stored as a whole, so that a VM
// whose heartbeats cannot be stored does not affect others.
func (b *heartbeats) flushHalves(group []fleet.Heartbeat, fault error) {
	if len(group) == 1 {
		b.registry.metrics.lost.Inc()
		vm := group[0].VM
		b.registry.limited(b.registry.Log, logHeartbeatsLost, vm).Error("heartbeats lost", logkey.VM, vm, logkey.Count, 1, logkey.Error, fault)
		return
	}
	half := len(group) / 2
	b.flush(group[:half])
	b.flush(group[half:])
}

// givesUp reports whether it is too late to retry.
func (b *heartbeats) givesUp() bool {
	select {
	case <-b.registry.stopping:
	default:
		return false
	}
	now := time.Now()
	if b.giveUp.IsZero() {
		b.giveUp = now.Add(lastTries)
	}
	return !now.Before(b.giveUp)
}

// pause waits, but not for long once the Registry stops.
func (b *heartbeats) pause(wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-b.registry.stopping:
		<-time.After(min(wait, 100*time.Millisecond))
	}
}
