package sqlite

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// errForeignLog occurs when the write-ahead log next to a database was written for other
// content of that file. SQLite does not detect that: it would replace pages of the database by those
// of the log, and corrupt it.
var errForeignLog = errors.New("the log was not written for this database, and would corrupt it: was a backup copied over the database? Move the log away if the database is the right one")

// checkStrays logs a warning for each file that does not belong to the database although
// SQLite would use it, or its name suggests so. It renames a file that SQLite would delete,
// and returns errForeignLog for one that would corrupt the database. It must be called
// before SQLite opens the database.
func checkStrays(path string, log *slog.Logger) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		s := stray{path: resolved(path) + suffix, within: copiedWithin, log: log}
		if beside := path + suffix; beside != s.path && size(beside) > 0 && !sameFile(beside, s.path) {
			log.Warn("this file does not belong to the database, whose path is a symbolic link: the files of the database are next to its target", logkey.Path, beside)
		}
		if size(s.path) == 0 {
			continue
		}
		if err := s.check(resolved(path), suffix); err != nil {
			return fmt.Errorf("check %s: %w", s.path, err)
		}
	}
	return nil
}

// stray is a file that may belong to the database next to it.
type stray struct {
	path   string
	within time.Duration
	log    *slog.Logger
}

// copiedWithin is the maximum difference between the creation times of a database's files
// when all of them are copied, in any order. Otherwise the log is created after the
// database.
const copiedWithin = time.Minute

func (s stray) check(database, suffix string) error {
	if size(database) == 0 {
		return s.setAside()
	}
	header, err := readHeader(database)
	if err != nil {
		return err
	}
	if suffix == "-wal" {
		switch of, err := logFor(s.path, versionIn(header[:])); {
		case err != nil:
			return err
		case !of:
			return errForeignLog
		}
	}
	switch {
	case suffix == "-journal" && header[18] == walVersion:
		s.log.Warn("this file does not belong to the database, which has no rollback journal: was the database copied over another?", logkey.Path, s.path)
	case suffix == "-wal" && bornAfter(database, s.path) > s.within:
		s.log.Warn("this file is older than the database and does not belong to it: was a backup copied next to the log of another database?", logkey.Path, s.path)
	}
	return nil
}

// setAside renames the file: SQLite deletes it when the database is empty, although it may
// contain the only copy of some commits.
func (s stray) setAside() error {
	aside := s.path + ".stray-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(s.path, aside); err != nil {
		return err
	}
	s.log.Warn("this file was next to an empty database and does not belong to it: it was renamed", logkey.Path, s.path, keyRenamed, aside)
	return syncDir(filepath.Dir(aside))
}

// walVersion is the file format version, in byte 18 of the header, of a database in WAL
// mode.
const walVersion = 2

// readHeader returns the header of a database, zero-filled if it is shorter.
func readHeader(path string) (header [100]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return header, err
	}
	if _, err = io.ReadFull(f, header[:]); errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // SQLite reports it better
	}
	return header, errors.Join(err, f.Close())
}

// size returns the size of a file, zero if it does not exist.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
