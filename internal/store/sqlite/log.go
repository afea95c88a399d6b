package sqlite

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// system is what a database depends on in the operating system.
type system struct {
	// vfs is the name of SQLite's file system; empty for the default.
	vfs string
	// openLog opens the write-ahead log without SQLite.
	openLog func(path string) (logFile, error)
	// claim prepares the files of a database before SQLite opens any of them, and locks it
	// until release.
	claim func(sys system, path string, log *slog.Logger) (release func() error, err error)
}

// logFile is the part of *os.File that rewriteLog needs.
type logFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// operatingSystem is the system of every database outside tests.
var operatingSystem = system{
	openLog: func(path string) (logFile, error) { return os.OpenFile(path, os.O_RDWR, 0) },
	claim:   system.own,
}

// resolved returns the path of a database with symbolic links resolved, as far as they
// exist.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// logOf returns the path of the write-ahead log of a database.
func logOf(path string) string { return resolved(path) + "-wal" }

// rewriteLog writes the log that a killed process has left once more, the same bytes in the
// same places, and syncs it. Parts of it may exist only in the page cache: after a failed
// sync the kernel marks pages as clean that are not on the disk, and another sync does not
// write them. SQLite trusts the log that it reads, and a power loss would destroy all
// commits after a gap. rewriteLog does nothing if there is no log. The caller holds the
// lock of the database.
func (s system) rewriteLog(path string) error {
	path = logOf(path)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.rewrite(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (s system) rewrite(path string) (err error) {
	f, err := s.openLog(path)
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
