// Package heartbeat owns a fast decoder for the heartbeats of a stream: most differ from the
// previous one only in load and time, and only these are decoded again. A heartbeat takes two
// fifths of the time and a third of the memory of plain decoding:
//
//	go test ./internal/rpc -run - -bench HeartbeatReader
package heartbeat

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The fields of miglet.commands.Heartbeat that differ in most heartbeats from those of the
// previous one.
const (
	healthField    = 4
	timestampField = 7
)

// maxRemembered is the maximum size of the fields that a Reader remembers, in bytes. Those of
// usual heartbeats have some 200 bytes.
const maxRemembered = 1 << 10

// A Reader decodes the heartbeats of one stream. It is not safe for concurrent use.
type Reader struct {
	decode func(wire []byte) (fleet.Heartbeat, error)
	last   fleet.Heartbeat
	same   []byte // the encoded fields of last, without the figures
	buffer []byte // for figures
}

// NewReader returns a Reader that uses decode to decode heartbeats from their binary form.
// decode must not retain its argument.
func NewReader(decode func(wire []byte) (fleet.Heartbeat, error)) *Reader {
	return &Reader{decode: decode}
}

// Read decodes a heartbeat, or returns the error of decode. repeated is whether the heartbeat
// differs from the previous one in load and time only. The result may share parts with earlier
// ones: it must not be modified.
func (r *Reader) Read(wire []byte) (h fleet.Heartbeat, repeated bool, err error) {
	if figures, ok := r.figures(wire); ok {
		decoded, err := r.decode(figures)
		h := r.last
		h.Health, h.SentAt = decoded.Health, decoded.SentAt
		return h, true, err
	}
	h, err = r.decode(wire)
	if err == nil {
		r.remember(h, wire)
	}
	return h, false, err
}

// figures returns the health and the timestamp of a heartbeat whose other fields are those of
// the last one. It returns false for other heartbeats.
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

// remember makes h the last heartbeat, or an empty one if h is too large.
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
