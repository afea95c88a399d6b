package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/gofrs/flock"
)

// ErrInUse occurs when another process has the database open, under any path. Another DB of
// the same process gets it too, but the attempt drops SQLite's locks of the first.
var ErrInUse = errors.New("the database is open elsewhere")

// databaseMode is the mode of a new database file, before the umask: the same as SQLite's.
const databaseMode fs.FileMode = 0o644

// own locks the database, which it creates if it does not exist, checks for files that do
// not belong to it, and repairs its log. The lock is on the file itself, so symbolic and
// hard links make no difference. It returns ErrInUse when the lock is taken.
//
// The lock must be taken before SQLite opens the file and released after SQLite has closed
// it: closing any descriptor of a file drops SQLite's own locks on it.
func (s system) own(path string, log *slog.Logger) (release func() error, err error) {
	lock := flock.New(lockedFile(path), flock.SetPermissions(databaseMode))
	switch alone, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock the database: %w", err)
	case !alone:
		return nil, ErrInUse
	}
	err = checkStrays(path, log)
	if err == nil {
		err = s.rewriteLog(path)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return lock.Unlock, nil
}
