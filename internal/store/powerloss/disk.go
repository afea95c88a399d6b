package powerloss

import (
	"bytes"
	"maps"
	"slices"
)

// sectorSize is the unit, in bytes, that a disk writes whole or not at all. Writing part of
// a sector leaves the rest unchanged, as SQLite assumes too ("powersafe overwrite").
const sectorSize = 512

// piece is a write to a part of a file, or a truncation.
type piece struct {
	at        int64
	data      []byte
	truncates bool
}

func (p piece) applyTo(content []byte) []byte {
	if grown := int(p.at) + len(p.data) - len(content); grown > 0 {
		content = append(content, make([]byte, grown)...)
	}
	if p.truncates {
		return content[:p.at]
	}
	copy(content[p.at:], p.data)
	return content
}

// sectors splits a write at sector boundaries.
func (p piece) sectors() []piece {
	if p.truncates {
		return []piece{p}
	}
	var parts []piece
	for data, at := p.data, p.at; len(data) > 0; {
		n := min(len(data), sectorSize-int(at%sectorSize))
		parts = append(parts, piece{at: at, data: data[:n]})
		data, at = data[n:], at+int64(n)
	}
	return parts
}

// inode is a file, whatever its name.
type inode struct {
	cached   []byte  // as processes read it
	durable  []byte  // as it certainly is on the disk
	unsynced []piece // what was written since the last sync, in order
	created  bool    // and not synced yet
}

func (f *inode) clone() *inode {
	return &inode{
		cached:   bytes.Clone(f.cached),
		durable:  bytes.Clone(f.durable),
		unsynced: slices.Clone(f.unsynced),
		created:  f.created,
	}
}

// surviving returns the file as a power loss leaves it.
func (f *inode) surviving(keep Keep) []byte {
	content := bytes.Clone(f.durable)
	for _, p := range keep.of(f.unsynced) {
		content = p.applyTo(content)
	}
	return content
}

// entry is a change of the directory: a name that is linked to a file, or removed.
type entry struct {
	name string
	file int // 0: none
}

// disk is a database's directory and its files after some of the recorded operations. Files
// are numbered from 1 in order of their appearance.
type disk struct {
	files    map[int]*inode
	names    map[string]int // as processes see the directory
	durable  map[string]int // as it certainly is on the disk
	unsynced []entry        // changes since the last sync, in order
}

func newDisk() *disk {
	return &disk{files: map[int]*inode{}, names: map[string]int{}, durable: map[string]int{}}
}

func (d *disk) clone() *disk {
	c := &disk{
		files:    make(map[int]*inode, len(d.files)),
		names:    maps.Clone(d.names),
		durable:  maps.Clone(d.durable),
		unsynced: slices.Clone(d.unsynced),
	}
	for n, f := range d.files {
		c.files[n] = f.clone()
	}
	return c
}

type kind int

const (
	created kind = iota
	written      // or truncated
	synced
	failed
	deleted
)

// event is a recorded operation.
type event struct {
	what   kind
	file   int
	name   string  // created, deleted
	pieces []piece // written: one; failed: what reached the disk anyway
	dir    bool    // deleted: the directory is synced as well
}

// find adds a durable file that existed before the recording began.
func (d *disk) find(file int, name string, content []byte) {
	d.files[file] = &inode{cached: bytes.Clone(content), durable: bytes.Clone(content)}
	d.names[name], d.durable[name] = file, file
}

// apply applies the next recorded operation.
func (d *disk) apply(e event) {
	switch e.what {
	case created:
		d.files[e.file] = &inode{created: true}
		d.names[e.name] = e.file
		d.unsynced = append(d.unsynced, entry{name: e.name, file: e.file})
	case written:
		f := d.files[e.file]
		f.cached = e.pieces[0].applyTo(f.cached)
		f.unsynced = append(f.unsynced, e.pieces[0])
	case synced:
		f := d.files[e.file]
		f.reach(f.unsynced)
		if f.created {
			f.created = false
			d.syncNames()
		}
	case failed:
		d.files[e.file].reach(e.pieces)
	case deleted:
		delete(d.names, e.name)
		d.unsynced = append(d.unsynced, entry{name: e.name})
		if e.dir {
			d.syncNames()
		}
	}
}

// reach makes pieces durable. All other unsynced writes are lost, even if later syncs
// succeed: the kernel marks the pages as clean.
func (f *inode) reach(pieces []piece) {
	for _, p := range pieces {
		f.durable = p.applyTo(f.durable)
	}
	f.unsynced = nil
}

func (d *disk) syncNames() {
	d.durable = d.surviving(All)
	d.unsynced = nil
}

// surviving returns the directory as a power loss leaves it. File systems make directory
// changes durable in order: those before the first lost one.
func (d *disk) surviving(keep Keep) map[string]int {
	names := maps.Clone(d.durable)
	for _, e := range d.unsynced {
		if !keep.has(0) {
			break
		}
		if e.file == 0 {
			delete(names, e.name)
		} else {
			names[e.name] = e.file
		}
	}
	return names
}
