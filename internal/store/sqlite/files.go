package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mig-controller/mig-controller/internal/store"
)

// openFiles are the files of an open database, the database first.
type openFiles []openFile

type openFile struct {
	path   string
	opened fs.FileInfo
}

// filesOf returns the open files of a database.
func filesOf(path string) (openFiles, error) {
	var files openFiles
	for _, p := range []string{path, logOf(path), resolved(path) + "-shm"} {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		files = append(files, openFile{p, info})
	}
	return files, nil
}

// check returns an error that names a file and wraps store.ErrRemoved when a path no longer
// leads to the file that was opened.
func (f openFiles) check() error {
	for _, file := range f {
		found, err := os.Stat(file.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: %w", file.path, store.ErrRemoved)
		case err != nil:
			return err
		case !os.SameFile(file.opened, found):
			return fmt.Errorf("%s: %w", file.path, store.ErrRemoved)
		}
	}
	return nil
}
