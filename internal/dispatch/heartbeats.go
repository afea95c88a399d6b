package dispatch

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// beatWindow is how long the first heartbeat of a group waits for others:
	// with the commit, under the 100 ms that a crash may cost.
	beatWindow = 50 * time.Millisecond
	// maxBeats is how many heartbeats one group takes.
	maxBeats = 2000
)

// heartbeats groups heartbeats and stores each group at once. Its queue holds
// one group; when that is full, those who bring more wait, and so their streams
// are not read.
type heartbeats struct {
	d       *Dispatcher
	queue   chan fleet.Heartbeat
	stopped chan struct{}
	fault   atomic.Pointer[error] // of the latest attempt to store
}

func newHeartbeats(d *Dispatcher) *heartbeats {
	return &heartbeats{d: d, queue: make(chan fleet.Heartbeat, maxBeats), stopped: make(chan struct{})}
}

// add queues a heartbeat that keeps its rules, and its file.
func (b *heartbeats) add(ctx context.Context, h fleet.Heartbeat, render func() ([]byte, error)) error {
	select {
	case b.queue <- h:
	default:
		select {
		case b.queue <- h:
		case <-ctx.Done():
			return ctx.Err()
		case <-b.stopped:
			return errStopping
		}
	}
	if b.d.Journal != nil {
		b.d.Journal.Heartbeat(h.Origin, render)
	}
	return nil
}

// failing returns why heartbeats cannot be stored at the moment; nil when they
// can.
func (b *heartbeats) failing() error {
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends flushLoop after what is queued is stored. Nothing may be added any
// more.
func (b *heartbeats) stop() { close(b.stopped) }

func (b *heartbeats) flushLoop() {
	group := make([]fleet.Heartbeat, 0, maxBeats)
	for {
		select {
		case h := <-b.queue:
			group = b.gather(append(group[:0], h))
			b.flush(group)
		case <-b.stopped:
			b.flush(b.drain(group[:0]))
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
			return b.drain(group)
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
// the Dispatcher stops.
func (b *heartbeats) flush(group []fleet.Heartbeat) {
	if len(group) == 0 {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := b.d.Store.RecordHeartbeats(context.Background(), group, b.d.registerCommand)
		if err == nil {
			b.fault.Store(nil)
			return
		}
		if b.fault.Swap(&err) == nil {
			b.d.Log.Error("heartbeats not stored, trying again", "heartbeats", len(group), keyError, err)
		}
		select {
		case <-time.After(wait):
		case <-b.stopped:
			b.d.Log.Error("heartbeats lost", "heartbeats", len(group),
				keyError, fmt.Errorf("store heartbeats: %w", err))
			return
		}
	}
}
