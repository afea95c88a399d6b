package sqlstore

import "github.com/mig-controller/mig-controller/internal/fleet"

// How much of what a transaction needed is kept for the next.
const (
	maxSpareVMs   = 1024
	maxSpareBytes = 4 << 20
)

// spare is room that transactions before have left: most are as large as the
// last, and thousands a second would keep the garbage collector busy. It is the
// writer's own.
type spare struct {
	byID    map[fleet.VMID]*vmEntry
	entries []*vmEntry
	docs    []byte
	packed  []byte
}

// vms returns an empty map of entries.
func (s *spare) vms() map[fleet.VMID]*vmEntry {
	if s.byID == nil {
		s.byID = map[fleet.VMID]*vmEntry{}
	}
	return s.byID
}

// entry returns an empty entry.
func (s *spare) entry() *vmEntry {
	n := len(s.entries)
	if n == 0 {
		return new(vmEntry)
	}
	e := s.entries[n-1]
	s.entries = s.entries[:n-1]
	return e
}

// keep takes back the entries of a transaction that is over.
func (s *spare) keep(vms map[fleet.VMID]*vmEntry) {
	large := len(vms) > maxSpareVMs
	for _, e := range vms {
		if len(s.entries) == maxSpareVMs {
			break
		}
		*e = vmEntry{}
		s.entries = append(s.entries, e)
	}
	clear(vms)
	if large {
		s.byID = nil
	}
}

// buffer returns an empty buffer, and keepBuffer takes it back.
func (s *spare) buffer() []byte { return s.docs[:0] }

func (s *spare) keepBuffer(b []byte) {
	if cap(b) <= maxSpareBytes {
		s.docs = b
	}
}

func (s *spare) keepPacked(b []byte) {
	if cap(b) <= maxSpareBytes {
		s.packed = b
	}
}
