package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// Until version 4 the text of a row of heartbeats was, for each VM, a heading with its id
// and the previous row of that VM, and then its heartbeats, oldest first, one JSON document
// per line. A heartbeat similar to the previous one had the member as_before and only the
// differences. Since version 5 there are only lines with whole heartbeats, in a Zstandard
// frame.

// packed is the first byte of an old row that is compressed: a Snappy block follows.
const packed byte = 1

const newHeartbeats = `CREATE TABLE heartbeats_by_line (
	seq  INTEGER PRIMARY KEY,
	at   INTEGER NOT NULL, -- the first of them was received
	vms  BLOB NOT NULL,    -- whose they are: the FNV-1a hash of each id, in 8 bytes
	docs BLOB NOT NULL     -- behind vms, so that to look there reads none of it
)`

// convertHeartbeats converts the rows of heartbeats to the format of version 5. A row that
// cannot be read is dropped and logged.
func convertHeartbeats(ctx context.Context, tx *sql.Tx, log *slog.Logger) error {
	if _, err := tx.ExecContext(ctx, newHeartbeats); err != nil {
		return err
	}
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	for seq := int64(0); ; {
		var received int64
		var docs []byte
		row := tx.QueryRowContext(ctx,
			`SELECT seq, received_at, docs FROM heartbeats WHERE seq > ? ORDER BY seq LIMIT 1`, seq)
		if err := row.Scan(&seq, &received, &docs); errors.Is(err, sql.ErrNoRows) {
			break
		} else if err != nil {
			return err
		}
		r, err := convertRow(docs)
		if err != nil {
			log.Warn("damaged heartbeats dropped", keySeq, seq, logkey.Error, err)
			continue
		}
		if !r.at.IsZero() {
			received = r.at.UnixNano()
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO heartbeats_by_line (seq, at, vms, docs) VALUES (?, ?, ?, ?)`,
			seq, received, hashes(r.vms...), packer.EncodeAll(r.text, nil)); err != nil {
			return err
		}
	}
	for _, q := range []string{
		`DROP TABLE heartbeats`,
		`ALTER TABLE heartbeats_by_line RENAME TO heartbeats`,
		`CREATE INDEX heartbeats_by_time ON heartbeats (at)`,
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// unpack returns the uncompressed text of an old row.
func unpack(row []byte) ([]byte, error) {
	if len(row) == 0 || row[0] != packed {
		return row, nil
	}
	return s2.Decode(nil, row[1:])
}

// convertedRow is a row of heartbeats during the conversion.
type convertedRow struct {
	text []byte
	vms  []string
	at   time.Time // when the first one was received

	vm     string                     // the VM of the following heartbeats
	before map[string]json.RawMessage // the previous heartbeat of that VM
}

func convertRow(row []byte) (*convertedRow, error) {
	text, err := unpack(row)
	if err != nil {
		return nil, err
	}
	r := new(convertedRow)
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if len(line) > 0 && line[0] == '{' {
			err = r.heartbeat(line)
		} else {
			err = r.heading(line)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(r.text) == 0 {
		return nil, errors.New("no heartbeats in the row")
	}
	return r, nil
}

// heading starts the heartbeats of another VM.
func (r *convertedRow) heading(line []byte) error {
	id, previous, _ := bytes.Cut(line, []byte{' '})
	if _, err := strconv.ParseInt(string(previous), 10, 64); err != nil || len(id) == 0 {
		return fmt.Errorf("not a heading: %q", line)
	}
	r.vm, r.before = string(id), nil
	return nil
}

// changing are the members that a heartbeat with as_before may contain.
var changing = []string{"received_at", "sent_at", "health"}

// heartbeat adds a heartbeat of the VM.
func (r *convertedRow) heartbeat(line []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return err
	}
	if r.vm == "" {
		return errors.New("there is no heading before the first heartbeat")
	}
	whole := members["as_before"] == nil && members["vm"] != nil
	if members["as_before"] != nil && r.before != nil {
		again := maps.Clone(r.before)
		for _, member := range changing {
			delete(again, member)
			if value, ok := members[member]; ok {
				again[member] = value
			}
		}
		members = again
	}
	delete(members, "as_before")
	if err := r.complete(members); err != nil {
		return err
	}
	if !whole {
		var err error
		if line, err = json.Marshal(members); err != nil {
			return err
		}
	}
	if r.before == nil {
		r.vms = append(r.vms, r.vm)
	}
	r.before = members
	r.text = append(append(r.text, line...), '\n')
	return nil
}

// complete adds the VM to a heartbeat that does not name one, and records when it was
// received.
func (r *convertedRow) complete(members map[string]json.RawMessage) (err error) {
	if members["vm"] == nil {
		if members["vm"], err = json.Marshal(r.vm); err != nil {
			return err
		}
	}
	if members["received_at"] == nil {
		return nil
	}
	var at time.Time
	if err := json.Unmarshal(members["received_at"], &at); err != nil {
		return err
	}
	if r.at.IsZero() || at.Before(r.at) {
		r.at = at
	}
	return nil
}
