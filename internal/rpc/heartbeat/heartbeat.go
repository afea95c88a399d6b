// Package heartbeat owns a quicker way to decode the heartbeats of a stream: most say what
// the one before has said, but for the load and the time, and only these are decoded anew.
// A heartbeat takes two fifths of the time and a third of the memory of a plain decoding:
//
//	go test ./internal/rpc -run - -bench HeartbeatReader
package heartbeat

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The fields of miglet.commands.Heartbeat that are in most heartbeats different from those
// in the one before.
const (
	healthField    = 4
	timestampField = 7
)

// maxRemembered is how long the fields may be, in bytes, that a Reader remembers. Those of
// usual heartbeats are some 200 bytes long.
const maxRemembered = 1 << 10

// A Reader decodes the heartbeats of one stream. It is not safe for concurrent use.
type Reader struct {
	decode func(wire []byte) (fleet.Heartbeat, error)
	last   fleet.Heartbeat
	same   []byte // the fields of last but the figures, as they came
	buffer []byte // for figures
}

// NewReader returns a Reader of heartbeats that decode decodes from their binary form. It
// must not retain what it is given.
func NewReader(decode func(wire []byte) (fleet.Heartbeat, error)) *Reader {
	return &Reader{decode: decode}
}

// Read returns what decode makes of a heartbeat, or its error. Parts of it may be shared
// with those before it: none may be changed.
func (r *Reader) Read(wire []byte) (fleet.Heartbeat, error) {
	if figures, ok := r.figures(wire); ok {
		decoded, err := r.decode(figures)
		h := r.last
		h.Health, h.SentAt = decoded.Health, decoded.SentAt
		return h, err
	}
	h, err := r.decode(wire)
	if err == nil {
		r.remember(h, wire)
	}
	return h, err
}

// figures returns the health and the timestamp of a heartbeat whose other fields are those
// of the last one.
func (r *Reader) figures(wire []byte) (figures []byte, ok bool) {
	same := r.same
	figures = r.buffer[:0]
	for len(wire) > 0 {
		number, _, n := protowire.ConsumeField(wire)
		switch {
		case n < 0:
			return nil, false
		case isFigure(number):
			figures = append(figures, wire[:n]...)
		case bytes.HasPrefix(same, wire[:n]):
			same = same[n:]
		default:
			return nil, false
		}
		wire = wire[n:]
	}
	r.buffer = figures
	return figures, len(same) == 0
}

// remember takes a heartbeat that was decoded as the last one, or else one of no field.
func (r *Reader) remember(h fleet.Heartbeat, wire []byte) {
	r.last, r.same = h, r.same[:0]
	for len(wire) > 0 {
		number, _, n := protowire.ConsumeField(wire)
		if n < 0 || len(r.same)+n > maxRemembered {
			r.last, r.same = fleet.Heartbeat{}, nil
			return
		}
		if !isFigure(number) {
			r.same = append(r.same, wire[:n]...)
		}
		wire = wire[n:]
	}
}

func isFigure(number protowire.Number) bool { return number == healthField || number == timestampField }
