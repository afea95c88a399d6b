package control

import "sync"

// wakers wakes those who wait for something with a key, and tells them what it
// is. The zero value is ready.
type wakers[K comparable, V any] struct {
	mu      sync.Mutex
	waiting map[K]map[chan V]struct{}
}

// join begins waiting for key until leave is called. The channel holds one
// wake-up, so none is missed by a waiter that is busy; of several that come
// before it looks the first counts.
func (w *wakers[K, V]) join(key K) (woken <-chan V, leave func()) {
	ch := make(chan V, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(map[K]map[chan V]struct{})
	}
	if w.waiting[key] == nil {
		w.waiting[key] = make(map[chan V]struct{})
	}
	w.waiting[key][ch] = struct{}{}
	return ch, func() { w.leave(key, ch) }
}

func (w *wakers[K, V]) leave(key K, ch chan V) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting[key], ch)
	if len(w.waiting[key]) == 0 {
		delete(w.waiting, key)
	}
}

// wake wakes all who wait for key. It does not block.
func (w *wakers[K, V]) wake(key K, what V) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.waiting[key] {
		select {
		case ch <- what:
		default:
		}
	}
}
