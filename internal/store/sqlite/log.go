package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// logOf returns the path of the write-ahead log of a database, past symbolic links.
func logOf(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return path + "-wal"
}

// secureLog writes the log that a killed process has left again as it is, the same
// bytes to the same places, and syncs it. Some of it may be in the memory of the
// kernel alone: when a sync has failed it takes for written what is not, and another
// sync would know nothing of it. SQLite takes the log as it reads it, and what is
// committed behind a gap is lost with the power. It does nothing where another process
// has the database open.
func secureLog(path string) error {
	path = logOf(path)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock := flock.New(path)
	if alone, err := lock.TryLock(); err != nil || !alone {
		return err
	}
	err := rewrite(path)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return errors.Join(err, lock.Unlock())
}

func rewrite(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := f.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return f.Sync()
		}
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockLog marks the log as that of a database that is open. SQLite itself locks other
// files.
func lockLog(path string) (*flock.Flock, error) {
	lock := flock.New(logOf(path))
	if err := lock.RLock(); err != nil {
		return nil, fmt.Errorf("lock the log: %w", err)
	}
	return lock, nil
}
