package dispatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// beatWindow is how long the first heartbeat of a group waits for others, also
	// while the group before is stored: with the commit, under the 100 ms that a
	// crash may cost.
	beatWindow = 50 * time.Millisecond
	// maxBeats is how many heartbeats one group takes, and maxBeatVMs from how many
	// VMs. At some 12 µs for the first of a VM (BenchmarkHeartbeats) and 2 µs for
	// each other it is stored in 20 ms, and mostly in 30 also when many change the
	// records of their VMs.
	maxBeats   = 5000
	maxBeatVMs = 1000
)

// heartbeats groups heartbeats and stores each group at once. While one group is
// stored the next one fills; when that is full, those who bring more wait, and
// so their streams are not read.
type heartbeats struct {
	d       *Dispatcher
	begun   chan struct{} // holds one: the group has its first
	full    chan struct{} // holds one: the group takes no more
	stopped chan struct{}
	fault   atomic.Pointer[error] // of the latest attempt to store
	giveUp  time.Time             // when flush no longer tries again; flushLoop's own

	mu     sync.Mutex
	group  []fleet.Heartbeat
	vms    map[fleet.VMID]struct{} // of the group
	since  time.Time               // when the group got its first, for the wait
	first  time.Time               // when that arrived
	spare  []fleet.Heartbeat       // what was stored last, for its room
	taken  time.Time               // when the first arrived of what is being stored; zero for nothing
	room   chan struct{}           // closed when the group is taken
	closed bool
}

func newHeartbeats(d *Dispatcher) *heartbeats {
	return &heartbeats{
		d: d, begun: make(chan struct{}, 1), full: make(chan struct{}, 1), stopped: make(chan struct{}),
		vms: map[fleet.VMID]struct{}{}, room: make(chan struct{}),
	}
}

// add queues a heartbeat that keeps its rules, and its file. When it returns nil
// the heartbeat will be stored, unless the store is unavailable to the end.
func (b *heartbeats) add(ctx context.Context, h fleet.Heartbeat, render func() ([]byte, error)) error {
	if room, ok := b.put(&h); !ok {
		if err := b.wait(ctx, &h, room); err != nil {
			return err
		}
	}
	if b.d.Journal != nil {
		b.d.Journal.Heartbeat(h.Origin, render)
	}
	return nil
}

// wait adds to the first group that has room. Later heartbeats may have been faster,
// and so oldest alone does not know since when its stream is not read.
func (b *heartbeats) wait(ctx context.Context, h *fleet.Heartbeat, room <-chan struct{}) error {
	_, done := b.d.unstored.add(func() time.Time { return h.ReceivedAt })
	defer done()
	for ok := false; !ok; {
		select {
		case <-room:
			room, ok = b.put(h)
		case <-ctx.Done():
			return ctx.Err()
		case <-b.stopped:
			return fleet.ErrStopping
		}
	}
	return nil
}

// put adds to the group and reports true, or returns what is closed when there
// is room again; there never is once the group is closed.
func (b *heartbeats) put(h *fleet.Heartbeat) (room <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.isFull() {
		return b.room, false
	}
	b.group = append(b.group, *h)
	b.vms[h.VM] = struct{}{}
	if len(b.group) == 1 {
		b.since, b.first = time.Now(), h.ReceivedAt
		b.begun <- struct{}{} // the one before was received before its group was taken
	}
	if b.isFull() {
		b.full <- struct{}{} // take has emptied it
	}
	return nil, true
}

func (b *heartbeats) isFull() bool { return len(b.group) == maxBeats || len(b.vms) == maxBeatVMs }

// take returns the group and begins the next.
func (b *heartbeats) take() []fleet.Heartbeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.group
	if len(taken) > 0 {
		b.taken = b.first
	}
	clear(b.spare) // it keeps its room, not what the heartbeats hold
	b.group, b.spare = b.spare[:0], taken
	clear(b.vms)
	select {
	case <-b.full:
	default:
	}
	close(b.room)
	b.room = make(chan struct{})
	return taken
}

// stored ends what take has begun.
func (b *heartbeats) stored() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = time.Time{}
}

// oldest returns when the first heartbeat arrived that is not stored yet, or now
// if there is none before.
func (b *heartbeats) oldest(now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.taken.IsZero() && b.taken.Before(now):
		return b.taken
	case len(b.group) > 0 && b.first.Before(now):
		return b.first
	default:
		return now
	}
}

// failing returns why heartbeats cannot be stored at the moment; nil when they
// can.
func (b *heartbeats) failing() error {
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends flushLoop after what is queued is stored. Nothing is added any more.
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

// gather returns when the group is full, or its first heartbeat has waited long
// enough.
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

// flush stores a group. While the store is unavailable it tries again, until
// the Dispatcher has been stopping for a while.
func (b *heartbeats) flush(group []fleet.Heartbeat) {
	if len(group) == 0 {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := b.d.Engine.RecordHeartbeats(context.Background(), group)
		if err == nil {
			if b.fault.Swap(nil) != nil {
				b.d.limited(b.d.Log, troubleStored, "").Info("heartbeats stored again")
			}
			return
		}
		if !errors.Is(err, fleet.ErrUnavailable) {
			b.flushHalves(group, err)
			return
		}
		if b.givesUp() {
			b.d.Log.Error("heartbeats lost", keyCount, len(group), keyError, err)
			return
		}
		if b.fault.Swap(&err) == nil {
			b.d.limited(b.d.Log, troubleUnstored, "").Error("heartbeats not stored, trying again", keyCount, len(group), keyError, err)
		}
		b.pause(wait)
	}
}

// flushHalves stores a group that cannot be stored as a whole, so that those of one
// VM cost no other's.
func (b *heartbeats) flushHalves(group []fleet.Heartbeat, fault error) {
	if len(group) == 1 {
		vm := group[0].VM
		b.d.limited(b.d.Log, troubleBeatsLost, vm).Error("heartbeats lost", keyVM, vm, keyCount, 1, keyError, fault)
		return
	}
	half := len(group) / 2
	b.flush(group[:half])
	b.flush(group[half:])
}

// givesUp reports whether it is too late to try again.
func (b *heartbeats) givesUp() bool {
	select {
	case <-b.d.stopping:
	default:
		return false
	}
	now := time.Now()
	if b.giveUp.IsZero() {
		b.giveUp = now.Add(lastTries)
	}
	return !now.Before(b.giveUp)
}

// pause waits, and not for long once the Dispatcher stops.
func (b *heartbeats) pause(wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-b.d.stopping:
		<-time.After(min(wait, 100*time.Millisecond))
	}
}
