package app

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/mig-controller/mig-controller/internal/config"
)

// dataLock excludes other controllers from a data directory. The operating system releases it
// when the process ends in any way. The database has its own lock.
type dataLock struct{ held *flock.Flock }

// lockData creates the data directory and that of the database if necessary, and locks the
// data directory.
func lockData(dataDir, database string) (*dataLock, error) {
	state := filepath.Join(dataDir, config.StateDir)
	if err := os.MkdirAll(state, 0o750); err != nil {
		return nil, fmt.Errorf("create the data directory %s: %w; choose another one with --data-dir", absolute(dataDir), err)
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o750); err != nil {
		return nil, fmt.Errorf("create the directory of the database %s: %w; choose another one with --database-url", absolute(database), err)
	}
	l := &dataLock{flock.New(filepath.Join(state, "lock"))}
	got, err := l.held.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the data directory %s: %w", absolute(dataDir), err)
	}
	if !got {
		return nil, inUse("the data directory "+absolute(dataDir), "--data-dir")
	}
	return l, nil
}

// inUse returns the error for something that another controller uses.
func inUse(what, option string) error {
	return fmt.Errorf("another controller uses %s: stop that controller, or set another location with %s", what, option)
}

// release unlocks the data directory. The file remains: if it were removed, two processes
// could lock two files of the same name.
func (l *dataLock) release() {
	_ = l.held.Unlock() // If this fails, the end of the process unlocks it.
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
