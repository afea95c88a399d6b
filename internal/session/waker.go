package session

import (
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// waker wakes sessions in its own goroutine, so that the engine's writer, which calls add,
// never waits for the lock of a session. Its queue is bounded by the number of VMs.
type waker struct {
	wake func(vm fleet.VMID, prepare bool)

	mu      sync.Mutex
	queued  map[fleet.VMID]bool // whether to ask for a token
	stopped bool
	more    chan struct{} // holds one
}

func newWaker(wake func(vm fleet.VMID, prepare bool)) *waker {
	return &waker{wake: wake, queued: map[fleet.VMID]bool{}, more: make(chan struct{}, 1)}
}

// add queues the session of a VM. It does not block.
func (w *waker) add(vm fleet.VMID, r fleet.Ready) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queued[vm] = w.queued[vm] || r.Prepare
	w.signal()
}

// stop ends run.
func (w *waker) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.signal()
}

func (w *waker) signal() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// run wakes sessions until stop.
func (w *waker) run() {
	batch := map[fleet.VMID]bool{}
	for range w.more {
		w.mu.Lock()
		batch, w.queued = w.queued, batch
		stopped := w.stopped
		w.mu.Unlock()
		for vm, prepare := range batch {
			w.wake(vm, prepare)
		}
		clear(batch)
		if stopped {
			return
		}
	}
}
