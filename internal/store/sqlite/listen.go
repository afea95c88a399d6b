package sqlite

import "sync"

// listeners are notified of changes. The zero value is ready to use.
type listeners struct {
	mu     sync.Mutex
	fns    map[int]func(last int64)
	nextID int
}

func (l *listeners) add(fn func(last int64)) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = map[int]func(int64){}
	}
	id := l.nextID
	l.nextID++
	l.fns[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, id)
	}
}

// notify calls the listeners.
func (l *listeners) notify(last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		fn(last)
	}
}
