package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// bytesPerBeat is what a heartbeat takes in a block, roughly.
const bytesPerBeat = 450

// block is a row of heartbeats: all that are committed together, VM after VM.
// A VM's begin with a line of its id and the row with the ones before them, 0
// for none; then each is a line of JSON, oldest first. A row that would not fit
// into a page is packed.
type block struct {
	docs  []byte
	vms   []*vmEntry
	until time.Time // the last was received
}

// add adds a heartbeat of the VM, which goes on from before; nil begins with the
// VM.
func (b *block) add(e *vmEntry, h, before *fleet.Heartbeat) (err error) {
	if before == nil {
		b.vms = append(b.vms, e)
		b.docs = append(append(b.docs, h.VM...), ' ')
		b.docs = append(strconv.AppendInt(b.docs, e.row.lastBeat, 10), '\n')
	}
	if before != nil && h.Repeats(*before) {
		b.docs = h.AppendLoadJSON(b.docs)
	} else if b.docs, err = h.AppendJSON(b.docs); err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	b.docs = append(b.docs, '\n')
	if h.ReceivedAt.After(b.until) {
		b.until = h.ReceivedAt
	}
	return nil
}

// addBlock writes the row and has its VMs know it.
func (t *tx) addBlock(b block) error {
	if len(b.vms) == 0 {
		return nil
	}
	row := b.docs
	if len(row) >= packFrom {
		row = pack(t.w.spare.packed, row)
		t.w.spare.keepPacked(row)
	}
	seq, err := t.insert(`INSERT INTO heartbeats (received_at, docs) VALUES (?, ?)`, b.until.UnixNano(), row)
	if err != nil {
		return fmt.Errorf("write heartbeats: %w", err)
	}
	for _, e := range b.vms {
		e.row.lastBeat = seq
	}
	return nil
}

const (
	// packFrom is how long the text of a row is that is packed: a page.
	packFrom = 4 << 10
	// packed is the first byte of a row that is: a block of Snappy follows. The
	// text begins with an id, and so with a letter or digit.
	packed byte = 1
)

// pack returns the row of a text, in the room of buf if that is enough.
func pack(buf, text []byte) []byte {
	n := 1 + s2.MaxEncodedLen(len(text))
	buf = slices.Grow(buf[:0], n)[:n]
	buf[0] = packed
	return buf[:1+len(s2.EncodeSnappy(buf[1:], text))]
}

// unpack returns the text of a row.
func unpack(row []byte) ([]byte, error) {
	if len(row) == 0 || row[0] != packed {
		return row, nil
	}
	return s2.Decode(nil, row[1:])
}

// part is what one VM has in a block.
type part struct {
	vm       fleet.VMID
	previous int64  // the row with those before; 0 for none
	lines    []byte // one heartbeat each
}

// parts calls fn with each part of a row until fn returns false.
func parts(row []byte, fn func(part) bool) error {
	docs, err := unpack(row)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	for len(docs) > 0 {
		heading, rest, _ := bytes.Cut(docs, []byte{'\n'})
		id, previous, _ := bytes.Cut(heading, []byte{' '})
		seq, err := strconv.ParseInt(string(previous), 10, 64)
		if err != nil {
			return fmt.Errorf("read heartbeats of %q: %w", id, err)
		}
		n := 0
		for line := range bytes.Lines(rest) {
			if line[0] != '{' {
				break
			}
			n += len(line)
		}
		if !fn(part{vm: fleet.VMID(id), previous: seq, lines: rest[:n]}) {
			return nil
		}
		docs = rest[n:]
	}
	return nil
}

// heartbeats returns the heartbeats of the part, oldest first.
func (p part) heartbeats() ([]fleet.Heartbeat, error) {
	var all []fleet.Heartbeat
	for line := range bytes.Lines(p.lines) {
		var said struct {
			fleet.Heartbeat
			AsBefore bool `json:"as_before"`
		}
		if err := json.Unmarshal(line, &said); err != nil {
			return nil, fmt.Errorf("read heartbeat: %w", err)
		}
		h := said.Heartbeat
		if said.AsBefore && len(all) > 0 {
			h = all[len(all)-1]
			h.ReceivedAt, h.SentAt, h.Health = said.ReceivedAt, said.SentAt, said.Health
		}
		all = append(all, h)
	}
	return all, nil
}

// Heartbeats lists the heartbeats of a VM that are still kept.
func (db *DB) Heartbeats(ctx context.Context, vm fleet.VMID, page store.Page) ([]fleet.Heartbeat, error) {
	seq, err := db.lastBeat(ctx, vm)
	var hs []fleet.Heartbeat
	for err == nil && seq > 0 && len(hs) < page.Size {
		var p part
		if p, err = db.partOf(ctx, vm, seq); err != nil {
			break
		}
		some, err := p.heartbeats()
		if err != nil {
			return nil, readError(ctx, err)
		}
		slices.Reverse(some)
		if page.Before > 0 {
			some = slices.DeleteFunc(some, func(h fleet.Heartbeat) bool { return h.ReceivedAt.UnixNano() >= page.Before })
		}
		hs = append(hs, some[:min(len(some), page.Size-len(hs))]...)
		seq = p.previous
	}
	if err != nil && !errors.Is(err, fleet.ErrNotFound) { // a VM, or a row, that is not kept ends the list
		return nil, err
	}
	return hs, nil
}

// lastBeat returns the row with the VM's last heartbeats.
func (db *DB) lastBeat(ctx context.Context, vm fleet.VMID) (int64, error) {
	if c, ok := db.writer.cache.get(vm); ok {
		return c.row.lastBeat, nil
	}
	return one(query(ctx, db, func(r *sql.Rows) (seq int64, err error) {
		err = r.Scan(&seq)
		return seq, err
	}, `SELECT last_beat FROM vms WHERE vm_id = ?`, string(vm)))
}

// partOf returns the VM's part of a row.
func (db *DB) partOf(ctx context.Context, vm fleet.VMID, seq int64) (part, error) {
	return one(query(ctx, db, func(r *sql.Rows) (found part, err error) {
		var row []byte
		if err := r.Scan(&row); err != nil {
			return found, err
		}
		err = parts(row, func(p part) bool {
			if p.vm != vm {
				return true
			}
			found = p
			return false
		})
		return found, err
	}, `SELECT docs FROM heartbeats WHERE seq = ?`, seq))
}
