package store

// Bound keeps a list within its limit and MaxBytes. The zero value is an empty list.
type Bound struct{ rows, bytes int }

// Takes reports whether a list with this limit has space for another row of this many
// bytes, and counts the row if so.
func (b *Bound) Takes(limit, bytes int) bool {
	if b.rows >= limit || b.rows > 0 && b.bytes+bytes > MaxBytes {
		return false
	}
	b.rows++
	b.bytes += bytes
	return true
}

// Size returns the size of the document in bytes.
func (r VMRow) Size() int { return len(r.Doc) }

// Size returns the size of the document in bytes.
func (r CommandRow) Size() int { return len(r.Doc) }

// Size returns the size of the document in bytes.
func (r EventRow) Size() int { return len(r.Doc) }

// Size returns the size of the document in bytes.
func (r HeartbeatRow) Size() int { return len(r.Doc) }

// Size returns the size of the document in bytes.
func (r ChangeRow) Size() int { return len(r.Doc) }

// Size returns the size of the document in bytes.
func (r AuditRow) Size() int { return len(r.Doc) }
