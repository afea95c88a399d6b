package powerloss

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// PlainFile is a file of the database as opened by a program that bypasses SQLite. Its
// writes and syncs are recorded like those of SQLite. The first sync of a file makes its
// name durable too: the program is expected to sync the directory.
type PlainFile struct {
	v *VFS
	h handle
}

// OpenFile opens a file of the database. It returns an error that wraps os.ErrNotExist if
// the file does not exist.
func (v *VFS) OpenFile(file File) (*PlainFile, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := filepath.Base(v.db) + string(file)
	n, exists := v.now.names[name]
	if !exists {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return &PlainFile{v: v, h: handle{name: name, file: n, failed: v.failed[n]}}, nil
}

// ReadAt implements io.ReaderAt.
func (f *PlainFile) ReadAt(p []byte, off int64) (int, error) {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	return bytes.NewReader(f.v.now.files[f.h.file].cached).ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *PlainFile) WriteAt(p []byte, off int64) (int, error) {
	f.v.wrote(f.h.file, piece{at: off, data: bytes.Clone(p)})
	return len(p), nil
}

// Sync makes the file durable, unless FailSyncs makes it fail.
func (f *PlainFile) Sync() error {
	if !f.v.synced(&f.h) {
		return errors.New("sync failed")
	}
	return nil
}

// Close implements io.Closer.
func (f *PlainFile) Close() error { return nil }
