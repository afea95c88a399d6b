package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
)

// version is the version of a database's content, as given by its first page.
type version struct {
	// counter is incremented once by each connection that changes the first page.
	counter uint32
	// pages is the size of the database.
	pages uint32
}

// versionIn returns the version in a first page.
func versionIn(page []byte) version {
	return version{counter: binary.BigEndian.Uint32(page[24:]), pages: binary.BigEndian.Uint32(page[28:])}
}

// logFor reports whether a write-ahead log can have been written for a database of this
// version. Nothing in the log identifies the database. But when the log was started, all
// commits were in the database, and since then only the log has been copied to it. So the
// database has the version at the start of the log, or one that is in the log.
//
// The format is that of https://sqlite.org/fileformat2.html#the_write_ahead_log.
func logFor(path string, database version) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	r, err := newLogReader(f)
	if err != nil {
		return true, ignoreEnd(err) // SQLite ignores it too
	}
	var committed, open []version
	var first uint32 // the size of the database after the first commit
	begun := false   // the first commit contains the first page
	for {
		page, size, err := r.next()
		if err != nil {
			return first == 0 || begins(database, committed, first, begun) || slices.Contains(committed, database), ignoreEnd(err)
		}
		if page == 1 {
			open = append(open, versionIn(r.content))
		}
		if size == 0 {
			continue
		}
		if first == 0 {
			first, begun = size, len(open) > 0
		}
		committed, open = append(committed, open...), nil
	}
}

// begins reports whether the log can have been started for this database.
func begins(database version, committed []version, first uint32, begun bool) bool {
	if len(committed) > 0 && committed[0].counter-database.counter > 1 {
		return false
	}
	return begun || database.pages == first
}

// errLogEnds occurs at the end of a log's valid frames.
var errLogEnds = errors.New("the log ends")

func ignoreEnd(err error) error {
	if errors.Is(err, errLogEnds) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// logReader reads the frames of a write-ahead log.
type logReader struct {
	file    *bufio.Reader
	order   binary.ByteOrder
	salts   [8]byte
	sums    [2]uint32
	content []byte // content of the latest frame
}

const (
	logMagic       = 0x377f0682 // the lowest bit is set where the checksums are big-endian
	logHeader      = 32
	frameHeader    = 24
	checksummed    = 8 // bytes of a frame's header
	largestPage    = 65536
	smallestPage   = 512
	logChecksummed = 24
)

// newLogReader reads the header of a log. It returns errLogEnds for one that is invalid.
func newLogReader(f io.Reader) (*logReader, error) {
	r := &logReader{file: bufio.NewReaderSize(f, 1<<20), order: binary.LittleEndian}
	var header [logHeader]byte
	if _, err := io.ReadFull(r.file, header[:]); err != nil {
		return nil, err
	}
	magic, page := binary.BigEndian.Uint32(header[:]), binary.BigEndian.Uint32(header[8:])
	if magic&^1 != logMagic || page < smallestPage || page > largestPage || page&(page-1) != 0 {
		return nil, errLogEnds
	}
	if magic&1 == 1 {
		r.order = binary.BigEndian
	}
	r.content = make([]byte, page)
	copy(r.salts[:], header[16:])
	r.sum(header[:logChecksummed])
	if !r.matches(header[logChecksummed:]) {
		return nil, errLogEnds
	}
	return r, nil
}

// next reads a frame into content. It returns the number of its page, and the size of the
// database in pages if the frame ends a commit, otherwise zero.
func (r *logReader) next() (page, size uint32, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r.file, header[:]); err != nil {
		return 0, 0, err
	}
	if _, err := io.ReadFull(r.file, r.content); err != nil {
		return 0, 0, err
	}
	r.sum(header[:checksummed])
	r.sum(r.content)
	if [8]byte(header[8:]) != r.salts || !r.matches(header[16:]) {
		return 0, 0, errLogEnds
	}
	return binary.BigEndian.Uint32(header[:]), binary.BigEndian.Uint32(header[4:]), nil
}

// sum continues the cumulative checksum of the log.
func (r *logReader) sum(content []byte) {
	for ; len(content) > 0; content = content[8:] {
		r.sums[0] += r.order.Uint32(content) + r.sums[1]
		r.sums[1] += r.order.Uint32(content[4:]) + r.sums[0]
	}
}

func (r *logReader) matches(sums []byte) bool {
	return binary.BigEndian.Uint32(sums) == r.sums[0] && binary.BigEndian.Uint32(sums[4:]) == r.sums[1]
}
