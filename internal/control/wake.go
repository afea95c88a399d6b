package control

import "sync"

// wakers wakes the waiters for a key, and passes them a value. The zero value is ready to
// use.
type wakers[K comparable, V any] struct {
	mu      sync.Mutex
	waiting map[K]map[chan V]struct{}
}

// join waits for key until leave is called. The channel holds one wake-up, so a busy waiter
// misses none; of several that arrive before it reads, the first counts.
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

// wake wakes all waiters for key. It does not block.
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
