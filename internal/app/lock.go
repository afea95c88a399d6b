package app

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// dataLock keeps a second controller out of a data directory and its database.
// The operating system drops it when the process ends, however it ends.
type dataLock struct{ held []*flock.Flock }

// lockData creates the data directory, if need be, and locks it, and the
// database when it is elsewhere.
func lockData(dataDir, database string) (*dataLock, error) {
	state := filepath.Join(dataDir, stateDir)
	if err := os.MkdirAll(state, 0o750); err != nil {
		return nil, fmt.Errorf("create the data directory %s: %w; --data-dir names another", absolute(dataDir), err)
	}
	l := &dataLock{}
	if err := l.add(filepath.Join(state, "lock"), "the data directory "+absolute(dataDir), "--data-dir"); err != nil {
		return nil, err
	}
	if filepath.Dir(absolute(database)) == absolute(state) {
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o750); err != nil {
		l.release()
		return nil, fmt.Errorf("create the directory of the database %s: %w; --database-url names another", absolute(database), err)
	}
	if err := l.add(database+".lock", "the database "+absolute(database), "--database-url"); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *dataLock) add(path, what, option string) error {
	f := flock.New(path)
	got, err := f.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", what, err)
	}
	if !got {
		return fmt.Errorf("another controller uses %s: stop it, or give this one its own with %s", what, option)
	}
	l.held = append(l.held, f)
	return nil
}

// release lets other controllers in. The files stay: removing a lock file lets
// two processes lock two files of one name.
func (l *dataLock) release() {
	for _, f := range l.held {
		_ = f.Unlock() // The process's end unlocks what this could not.
	}
	l.held = nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
