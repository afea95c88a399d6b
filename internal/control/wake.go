package control

import "sync"

// wakers wakes those who wait for something with a key. The zero value is
// ready.
type wakers[K comparable] struct {
	mu      sync.Mutex
	waiting map[K]map[chan struct{}]struct{}
}

// join begins waiting for key until leave is called. The channel holds one
// wake-up, so none is missed by a waiter that is busy; several that come before
// it looks are one.
func (w *wakers[K]) join(key K) (woken <-chan struct{}, leave func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(map[K]map[chan struct{}]struct{})
	}
	if w.waiting[key] == nil {
		w.waiting[key] = make(map[chan struct{}]struct{})
	}
	w.waiting[key][ch] = struct{}{}
	return ch, func() { w.leave(key, ch) }
}

func (w *wakers[K]) leave(key K, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting[key], ch)
	if len(w.waiting[key]) == 0 {
		delete(w.waiting, key)
	}
}

// wake wakes all who wait for key. It does not block.
func (w *wakers[K]) wake(key K) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.waiting[key] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
