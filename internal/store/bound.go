package store

// Bound keeps a list within its limit and within MaxBytes. The zero value is an empty
// list.
type Bound struct{ rows, bytes int }

// Takes reports whether a list with this limit takes another row, with so many bytes,
// and counts it if so.
func (b *Bound) Takes(limit, bytes int) bool {
	if b.rows >= limit || b.rows > 0 && b.bytes+bytes > MaxBytes {
		return false
	}
	b.rows++
	b.bytes += bytes
	return true
}

// Size returns how many bytes the document has.
func (r VMRow) Size() int { return len(r.Doc) }

// Size returns how many bytes the document has.
func (r CommandRow) Size() int { return len(r.Doc) }

// Size returns how many bytes the document has.
func (r EventRow) Size() int { return len(r.Doc) }

// Size returns how many bytes the document has.
func (r HeartbeatRow) Size() int { return len(r.Doc) }

// Size returns how many bytes the document has.
func (r ChangeRow) Size() int { return len(r.Doc) }
