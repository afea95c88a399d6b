package powerloss

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

// This file binds VFS to SQLite, which is C translated to Go: a pointer is a uintptr to
// memory that Go does not manage, and a function pointer is a func value as a uintptr. Func
// values of package-level functions do not move.

// The types of SQLite's functions and callbacks.
type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	readFunc     = func(tls *libc.TLS, file, buffer uintptr, n int32, at sqlite3.Tsqlite3_int64) int32
	writeFunc    = func(tls *libc.TLS, file, buffer uintptr, n int32, at sqlite3.Tsqlite3_int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size sqlite3.Tsqlite3_int64) int32
	syncFunc     = func(tls *libc.TLS, file uintptr, flags int32) int32
	sizeFunc     = func(tls *libc.TLS, file, size uintptr) int32
)

// binding is a VFS as registered with SQLite.
type binding struct {
	name   string
	tls    *libc.TLS
	cname  uintptr
	vfs    uintptr
	parent uintptr

	mu     sync.Mutex
	tables map[uintptr]uintptr // copies of the parent's method tables
}

// handle is an open file.
type handle struct {
	vfs    *VFS
	parent *sqlite3.Tsqlite3_io_methods

	name   string
	file   int
	failed int // how many sync failures of this file it has reported
}

// SQLite passes its own pointers to the functions below, which look up the Go values for
// them in global maps.
var (
	registered sync.Map // *VFS by its sqlite3_vfs
	handles    sync.Map // *handle by its sqlite3_file
	names      atomic.Int64

	// registering is held while a VFS is registered or unregistered: SQLite links all of them by
	// a member of the one that is copied.
	registering sync.Mutex
)

// as converts a C word to a Go value: a pointer or a function.
func as[T any](word uintptr) T {
	return *(*T)(unsafe.Pointer(&word)) //nolint:gosec // both are one word
}

// wordOf converts a function to a C word.
func wordOf[F any](f F) uintptr {
	return *(*uintptr)(unsafe.Pointer(&f)) //nolint:gosec // both are one word
}

// bind registers the VFS with SQLite: a copy of the default one with its own functions
// for opening and deleting files.
func (v *VFS) bind() error {
	c := &v.c
	c.tls = libc.NewTLS()
	c.tables = map[uintptr]uintptr{}
	c.name = fmt.Sprintf("powerloss-%d", names.Add(1))
	var err error
	if c.cname, err = libc.CString(c.name); err != nil {
		return err
	}
	registering.Lock()
	defer registering.Unlock()
	c.parent = sqlite3.Xsqlite3_vfs_find(c.tls, 0)
	if c.parent == 0 {
		return errors.New("SQLite has no VFS")
	}
	c.vfs = copied[sqlite3.Tsqlite3_vfs](c.tls, c.parent)
	own := as[*sqlite3.Tsqlite3_vfs](c.vfs)
	own.FpNext = 0
	own.FzName = c.cname
	own.FxOpen = wordOf[openFunc](openFile)
	own.FxDelete = wordOf[deleteFunc](deleteFile)
	registered.Store(c.vfs, v)
	if rc := sqlite3.Xsqlite3_vfs_register(c.tls, c.vfs, 0); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("register %s: %d", c.name, rc)
	}
	return nil
}

func (v *VFS) unbind() error {
	c := &v.c
	var open []string
	handles.Range(func(_, h any) bool {
		if h, ok := h.(*handle); ok && h.vfs == v {
			open = append(open, h.name)
		}
		return true
	})
	if len(open) > 0 {
		return fmt.Errorf("%s is still in use: %q", c.name, open) // otherwise SQLite would crash
	}
	registering.Lock()
	rc := sqlite3.Xsqlite3_vfs_unregister(c.tls, c.vfs)
	registering.Unlock()
	registered.Delete(c.vfs)
	for _, table := range c.tables {
		libc.Xfree(c.tls, table)
	}
	libc.Xfree(c.tls, c.vfs)
	libc.Xfree(c.tls, c.cname)
	c.tls.Close()
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("unregister %s: %d", c.name, rc)
	}
	return nil
}

// copied returns a copy of a structure in C memory.
func copied[T any](tls *libc.TLS, from uintptr) uintptr {
	to := libc.Xmalloc(tls, types.Size_t(unsafe.Sizeof(*new(T))))
	*as[*T](to) = *as[*T](from)
	return to
}

// table returns a copy of one of the parent's method tables, in which the functions that
// change files are replaced.
func (c *binding) table(parent uintptr) uintptr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tables[parent] == 0 {
		table := copied[sqlite3.Tsqlite3_io_methods](c.tls, parent)
		own := as[*sqlite3.Tsqlite3_io_methods](table)
		own.FxClose = wordOf[closeFunc](closeFile)
		own.FxWrite = wordOf[writeFunc](writeFile)
		own.FxTruncate = wordOf[truncateFunc](truncateFile)
		own.FxSync = wordOf[syncFunc](syncFile)
		c.tables[parent] = table
	}
	return c.tables[parent]
}

func vfsOf(pointer uintptr) *VFS {
	v, _ := registered.Load(pointer)
	return v.(*VFS) //nolint:errcheck // nothing else is stored, and it is removed last
}

func handleOf(pointer uintptr) *handle {
	h, _ := handles.Load(pointer)
	return h.(*handle) //nolint:errcheck // nothing else is stored, and SQLite closes a file last
}

// openFile opens the file with the parent, and replaces its methods.
func openFile(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32 {
	v := vfsOf(vfs)
	open := as[openFunc](as[*sqlite3.Tsqlite3_vfs](v.c.parent).FxOpen)
	rc := open(tls, v.c.parent, name, file, flags, outFlags)
	const durable = sqlite3.SQLITE_OPEN_MAIN_DB | sqlite3.SQLITE_OPEN_MAIN_JOURNAL | sqlite3.SQLITE_OPEN_WAL
	if rc != sqlite3.SQLITE_OK || flags&durable == 0 {
		return rc
	}
	methods := &as[*sqlite3.Tsqlite3_file](file).FpMethods
	path := libc.GoString(name)
	h := &handle{vfs: v, parent: as[*sqlite3.Tsqlite3_io_methods](*methods)}
	err := v.opened(h, path, flags&sqlite3.SQLITE_OPEN_MAIN_DB != 0, func() ([]byte, error) {
		return h.content(tls, file)
	})
	if err != nil {
		v.tb.Errorf("open %s: %v", path, err)
		as[closeFunc](h.parent.FxClose)(tls, file)
		*methods = 0 // otherwise SQLite closes it again
		return sqlite3.SQLITE_CANTOPEN
	}
	handles.Store(file, h)
	*methods = v.c.table(*methods)
	return sqlite3.SQLITE_OK
}

// content reads a file through the parent: opening and closing it a second time would drop
// the process's locks on it.
func (h *handle) content(tls *libc.TLS, file uintptr) ([]byte, error) {
	words := libc.Xmalloc(tls, 8)
	defer libc.Xfree(tls, words)
	if rc := as[sizeFunc](h.parent.FxFileSize)(tls, file, words); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("size: %d", rc)
	}
	size := *as[*sqlite3.Tsqlite3_int64](words)
	if size == 0 {
		return nil, nil
	}
	buffer := libc.Xmalloc(tls, types.Size_t(size))
	defer libc.Xfree(tls, buffer)
	if rc := as[readFunc](h.parent.FxRead)(tls, file, buffer, int32(size), 0); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("read: %d", rc)
	}
	return bytes.Clone(unsafe.Slice(as[*byte](buffer), size)), nil //nolint:gosec // that many were read
}

func deleteFile(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32 {
	v := vfsOf(vfs)
	remove := as[deleteFunc](as[*sqlite3.Tsqlite3_vfs](v.c.parent).FxDelete)
	rc := remove(tls, v.c.parent, name, 0)
	if rc == sqlite3.SQLITE_OK {
		v.deleted(libc.GoString(name), syncDir != 0)
	}
	return rc
}

func closeFile(tls *libc.TLS, file uintptr) int32 {
	h := handleOf(file)
	rc := as[closeFunc](h.parent.FxClose)(tls, file)
	handles.Delete(file)
	return rc
}

func writeFile(tls *libc.TLS, file, buffer uintptr, n int32, at sqlite3.Tsqlite3_int64) int32 {
	h := handleOf(file)
	rc := as[writeFunc](h.parent.FxWrite)(tls, file, buffer, n, at)
	if rc == sqlite3.SQLITE_OK {
		data := unsafe.Slice(as[*byte](buffer), n) //nolint:gosec // SQLite passes that many
		h.vfs.wrote(h.file, piece{at: at, data: bytes.Clone(data)})
	}
	return rc
}

func truncateFile(tls *libc.TLS, file uintptr, size sqlite3.Tsqlite3_int64) int32 {
	h := handleOf(file)
	rc := as[truncateFunc](h.parent.FxTruncate)(tls, file, size)
	if rc == sqlite3.SQLITE_OK {
		h.vfs.wrote(h.file, piece{at: size, truncates: true})
	}
	return rc
}

// syncFile is the only function that does not call its parent: syncing the real disk takes
// time and proves nothing.
func syncFile(_ *libc.TLS, file uintptr, _ int32) int32 {
	h := handleOf(file)
	if !h.vfs.synced(h) {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}
