package sqlite

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/gofrs/flock"
)

// ErrInUse occurs when another process has the database open, by whatever path. Another DB
// of the same process gets it too, but the attempt drops the locks of SQLite on the first.
var ErrInUse = errors.New("the database is open elsewhere")

// databaseMode is the mode of a new database file, before the umask: SQLite's.
const databaseMode fs.FileMode = 0o644

// lock locks the database, which it creates if it does not exist. The lock is on the
// file itself, so that symbolic and hard links to it make no difference. It returns
// ErrInUse when the lock is taken; alone reports whether nobody else has the database
// open, which is always so unless the system is shared.
//
// The lock must be taken before SQLite opens the file and released after SQLite has
// closed it: to close any descriptor of a file drops SQLite's own locks on it.
func (s system) lock(path string) (lock *flock.Flock, alone bool, err error) {
	lock = flock.New(lockedFile(path), flock.SetPermissions(databaseMode))
	alone, err = lock.TryLock()
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("lock the database: %w", err)
	case !alone && s.shared:
		err = lock.RLock()
	case !alone:
		return nil, false, ErrInUse
	}
	return lock, alone, err
}
