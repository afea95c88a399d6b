package powerloss

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// File is one of the files of a database: the suffix that is appended to the database's
// name. The index of the WAL ("-shm") is shared memory and is not recorded.
type File string

// The files of a database.
const (
	Database File = ""
	WAL      File = "-wal"
	Journal  File = "-journal"
)

// VFS is an SQLite file system that records the operations on the files of one database. It
// is safe for concurrent use.
type VFS struct {
	tb testing.TB
	c  binding

	mu     sync.Mutex
	db     string // path of the database; empty until it is opened
	start  *disk
	events []event // since start
	now    *disk
	past   *disk // after the first passed events
	passed int
	fails  map[File]failure
	failed map[int]int // failure count by file number
}

type failure struct {
	times   int
	reached Keep
}

// Register registers a new VFS with SQLite until the end of the test. All connections
// through it must be closed by then; a cleanup that closes them must be added after
// this call.
func Register(tb testing.TB) *VFS {
	tb.Helper()
	return register(tb, newDisk())
}

func register(tb testing.TB, start *disk) *VFS {
	tb.Helper()
	v := &VFS{tb: tb, start: start, now: start.clone(), past: start.clone()}
	v.fails, v.failed = map[File]failure{}, map[int]int{}
	require.NoError(tb, v.bind())
	tb.Cleanup(func() { require.NoError(tb, v.unbind()) })
	return v
}

// Name returns the name for a DSN: "file:/tmp/x.db?vfs=" + v.Name().
func (v *VFS) Name() string { return v.c.name }

// Moment returns how many operations are recorded. They include everything that was
// acknowledged before the call: a commit acknowledged by then must survive a power loss at
// this moment or a later one.
func (v *VFS) Moment() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.events)
}

// Snapshot writes the database into a directory as a power loss at this moment would leave
// it, and returns its path there. It replaces the files of an earlier call. Open it without
// the VFS, or with a new one: its files are durable.
func (v *VFS) Snapshot(dir string, keep Keep) string {
	v.tb.Helper()
	return v.SnapshotAt(v.Moment(), dir, keep)
}

// SnapshotAt is Snapshot for a power loss after the first operations that were
// recorded, as Moment counts them. It is fastest when moments only increase.
func (v *VFS) SnapshotAt(moment int, dir string, keep Keep) string {
	v.tb.Helper()
	files, err := v.surviving(moment, keep)
	require.NoError(v.tb, err)
	return v.write(dir, files)
}

// surviving returns the files that survive a power loss, by name.
func (v *VFS) surviving(moment int, keep Keep) (map[string][]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if moment > len(v.events) {
		return nil, fmt.Errorf("moment %d is in the future: %d operations are recorded", moment, len(v.events))
	}
	if moment < v.passed {
		v.past, v.passed = v.start.clone(), 0
	}
	for ; v.passed < moment; v.passed++ {
		v.past.apply(v.events[v.passed])
	}
	files := map[string][]byte{}
	for name, file := range v.past.surviving(keep) {
		files[name] = v.past.files[file].surviving(keep)
	}
	return files, nil
}

// Kill writes the database into a directory as a kill of its process at this moment would
// leave it, and returns its path there with a VFS for the next process: all writes can be
// read, and are as durable as before. This VFS continues as if nothing had happened; its
// connections must still be closed.
func (v *VFS) Kill(dir string) (db string, next *VFS) {
	v.tb.Helper()
	v.mu.Lock()
	start := v.now.clone()
	v.mu.Unlock()
	files := map[string][]byte{}
	for name, file := range start.names {
		files[name] = start.files[file].cached
	}
	db, next = v.write(dir, files), register(v.tb, start)
	next.db = db
	return db, next
}

// write replaces the files of the database in a directory.
func (v *VFS) write(dir string, files map[string][]byte) string {
	v.tb.Helper()
	v.mu.Lock()
	name := filepath.Base(v.db)
	v.mu.Unlock()
	require.NotEqual(v.tb, ".", name, "a database was opened")
	for _, suffix := range []File{Database, WAL, Journal, "-shm"} {
		path := filepath.Join(dir, name+string(suffix))
		content, exists := files[name+string(suffix)]
		if exists {
			require.NoError(v.tb, os.WriteFile(path, content, 0o600))
		} else if err := os.Remove(path); !os.IsNotExist(err) {
			require.NoError(v.tb, err)
		}
	}
	return filepath.Join(dir, name)
}

// FailSyncs makes the next syncs of a file fail with SQLITE_IOERR_FSYNC. Of the unsynced
// writes, reached decides which have reached the disk by then. The others are lost for
// good, unless they are written again: processes can read them, and no later sync fails for
// them, but they are not on the disk. Each of the other connections that had the file open
// sees one sync fail as well. (Linux reports a write error once to each open file, and
// marks the pages as clean from then on.) A call replaces earlier ones for the same file;
// zero times repairs the disk.
func (v *VFS) FailSyncs(file File, times int, reached Keep) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fails[file] = failure{times: times, reached: reached}
}

// Failing returns how many syncs of a file are still to fail.
func (v *VFS) Failing(file File) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fails[file].times
}

// opened sets which file a handle is for. The content of a file that was not known before
// counts as durable.
func (v *VFS) opened(h *handle, path string, isDatabase bool, content func() ([]byte, error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if isDatabase && v.db == "" {
		v.db = path
	}
	if filepath.Dir(path) != filepath.Dir(v.db) || isDatabase && path != v.db {
		return fmt.Errorf("%s is recorded, not %s", v.db, path)
	}
	h.name = filepath.Base(path)
	if file, known := v.now.names[h.name]; known {
		h.file, h.failed = file, v.failed[file]
		return nil
	}
	data, err := content()
	if err != nil {
		return err
	}
	h.file = len(v.now.files) + 1
	if len(data) > 0 {
		for _, d := range []*disk{v.start, v.past, v.now} {
			d.find(h.file, h.name, data)
		}
		return nil
	}
	v.record(event{what: created, file: h.file, name: h.name})
	return nil
}

func (v *VFS) wrote(file int, p piece) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.record(event{what: written, file: file, pieces: []piece{p}})
}

// synced records a sync, and reports whether it succeeds.
func (v *VFS) synced(h *handle) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	kind := File(h.name[len(filepath.Base(v.db)):])
	if f := v.fails[kind]; f.times > 0 {
		v.fails[kind] = failure{times: f.times - 1, reached: f.reached}
		v.record(event{what: failed, file: h.file, pieces: f.reached.of(v.now.files[h.file].unsynced)})
		v.failed[h.file]++
		h.failed = v.failed[h.file]
		return false
	}
	v.record(event{what: synced, file: h.file})
	known := h.failed == v.failed[h.file]
	h.failed = v.failed[h.file]
	return known
}

func (v *VFS) deleted(path string, dirSynced bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if name := filepath.Base(path); v.now.names[name] != 0 {
		v.record(event{what: deleted, name: name, dir: dirSynced})
	}
}

func (v *VFS) record(e event) {
	v.events = append(v.events, e)
	v.now.apply(e)
}
