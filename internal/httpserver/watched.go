package httpserver

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// checkInterval is the minimum time between two checks of files for changes.
const checkInterval = 5 * time.Second

// watched is a value that is read from files, and read again when they change. It is safe for
// concurrent use.
type watched[T any] struct {
	files []string
	read  func() (*T, error)
	// changed is called with each value that is read after the first, unusable with the reason
	// why the files cannot be used, once for each of their versions.
	changed  func(*T)
	unusable func(error)
	current  atomic.Pointer[T]

	checking  sync.Mutex // guards the following fields
	lastCheck time.Time
	served    []version // versions of the files when current was read
	refused   []version // versions of the files when they were last found unusable
}

// version identifies the content of a file.
type version struct{ modified, size int64 }

// open reads the value for the first time.
func (w *watched[T]) open() error {
	w.lastCheck = time.Now()
	w.served = w.found()
	value, err := w.read()
	if err == nil {
		w.current.Store(value)
	}
	return err
}

// found returns the current versions of the files.
func (w *watched[T]) found() []version {
	versions := make([]version, len(w.files))
	for i, path := range w.files {
		if info, err := os.Stat(path); err == nil {
			versions[i] = version{info.ModTime().UnixNano(), info.Size()}
		}
	}
	return versions
}

// latest returns the value after a check of the files, unless another call is checking them.
func (w *watched[T]) latest() *T {
	if w.checking.TryLock() { // so that a handshake does not wait for the files
		w.check()
		w.checking.Unlock()
	}
	return w.current.Load()
}

// check reads the files again if they have changed. Unusable ones are retried until they are
// usable.
func (w *watched[T]) check() {
	if time.Since(w.lastCheck) < checkInterval {
		return
	}
	w.lastCheck = time.Now()
	found := w.found()
	if slices.Equal(found, w.served) {
		return
	}
	value, err := w.read()
	if err != nil {
		if !slices.Equal(found, w.refused) {
			w.unusable(err)
		}
		w.refused = found
		return
	}
	w.served = found
	w.current.Store(value)
	w.changed(value)
}
