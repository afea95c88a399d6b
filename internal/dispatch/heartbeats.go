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
	// beatWindow is how long the first heartbeat of a group waits for others:
	// with the commit, under the 100 ms that a crash may cost.
	beatWindow = 40 * time.Millisecond
	// maxBeats is how many heartbeats one group takes: at some 60 µs for each to
	// be stored (BenchmarkHeartbeats), a queue full of them waits for two groups
	// and stays within the 100 ms as well.
	maxBeats = 400
)

// heartbeats groups heartbeats and stores each group at once. Its queue holds
// one group; when that is full, those who bring more wait, and so their streams
// are not read.
type heartbeats struct {
	d       *Dispatcher
	queue   chan fleet.Heartbeat
	adding  sync.RWMutex // held for reading by those who add
	stopped chan struct{}
	fault   atomic.Pointer[error] // of the latest attempt to store
	giveUp  time.Time             // when flush no longer tries again; flushLoop's own
}

func newHeartbeats(d *Dispatcher) *heartbeats {
	return &heartbeats{d: d, queue: make(chan fleet.Heartbeat, maxBeats), stopped: make(chan struct{})}
}

// add queues a heartbeat that keeps its rules, and its file. When it returns nil
// the heartbeat will be stored, unless the store is unavailable to the end.
func (b *heartbeats) add(ctx context.Context, h fleet.Heartbeat, render func() ([]byte, error)) error {
	if err := b.put(ctx, h); err != nil {
		return err
	}
	if b.d.Journal != nil {
		b.d.Journal.Heartbeat(h.Origin, render)
	}
	return nil
}

func (b *heartbeats) put(ctx context.Context, h fleet.Heartbeat) error {
	b.adding.RLock()
	defer b.adding.RUnlock()
	select {
	case <-b.stopped:
		return fleet.ErrStopping
	default:
	}
	select {
	case b.queue <- h: // whatever has become of ctx
		return nil
	default:
	}
	select {
	case b.queue <- h:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-b.stopped:
		return fleet.ErrStopping
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
func (b *heartbeats) stop() { close(b.stopped) }

func (b *heartbeats) flushLoop() {
	group := make([]fleet.Heartbeat, 0, maxBeats)
	for {
		select {
		case h := <-b.queue:
			group = b.gather(append(group[:0], h))
			b.flush(group)
		case <-b.stopped:
			b.adding.Lock() // those who were adding have left
			group = b.drain(group[:0])
			b.adding.Unlock()
			b.flush(group)
			return
		}
	}
}

// gather fills a group for as long as its first heartbeat may wait.
func (b *heartbeats) gather(group []fleet.Heartbeat) []fleet.Heartbeat {
	window := time.NewTimer(beatWindow)
	defer window.Stop()
	for len(group) < maxBeats {
		select {
		case h := <-b.queue:
			group = append(group, h)
		case <-window.C:
			return group
		case <-b.stopped:
			return group
		}
	}
	return group
}

func (b *heartbeats) drain(group []fleet.Heartbeat) []fleet.Heartbeat {
	for {
		select {
		case h := <-b.queue:
			group = append(group, h)
		default:
			return group
		}
	}
}

// flush stores a group. While the store is unavailable it tries again, until
// the Dispatcher has been stopping for a while.
func (b *heartbeats) flush(group []fleet.Heartbeat) {
	if len(group) == 0 {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := b.d.Store.RecordHeartbeats(context.Background(), group, b.d.registerCommand)
		if err == nil {
			if b.fault.Swap(nil) != nil {
				b.d.Log.Info("heartbeats stored again")
			}
			b.tell(group)
			return
		}
		if !errors.Is(err, fleet.ErrUnavailable) || b.givesUp() {
			b.d.Log.Error("heartbeats lost", keyCount, len(group), keyError, err)
			return
		}
		if b.fault.Swap(&err) == nil {
			b.d.Log.Error("heartbeats not stored, trying again", keyCount, len(group), keyError, err)
		}
		b.pause(wait)
	}
}

// tell tells the sessions whose runners the group has shown.
func (b *heartbeats) tell(group []fleet.Heartbeat) {
	for _, h := range group {
		if h.Runner == nil {
			continue
		}
		if s := b.d.registry.session(h.VM); s != nil && s.epoch == h.Epoch {
			s.show()
		}
	}
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
