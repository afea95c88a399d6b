package app

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/mig-controller/mig-controller/internal/config"
)

// dataLock keeps a second controller out of a data directory. The operating system
// drops it when the process ends, however it ends. The database has a lock of its own.
type dataLock struct{ held *flock.Flock }

// lockData creates the data directory and that of the database, if need be, and locks
// the data directory.
func lockData(dataDir, database string) (*dataLock, error) {
	state := filepath.Join(dataDir, config.StateDir)
	if err := os.MkdirAll(state, 0o750); err != nil {
		return nil, fmt.Errorf("create the data directory %s: %w; --data-dir names another", absolute(dataDir), err)
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o750); err != nil {
		return nil, fmt.Errorf("create the directory of the database %s: %w; --database-url names another", absolute(database), err)
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

// inUse is the error for what another controller uses.
func inUse(what, option string) error {
	return fmt.Errorf("another controller uses %s: stop it, or give this one its own with %s", what, option)
}

// release lets other controllers in. The file stays: removing a lock file lets two
// processes lock two files of one name.
func (l *dataLock) release() {
	_ = l.held.Unlock() // The process's end unlocks what this could not.
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
