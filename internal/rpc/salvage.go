package rpc

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// ackField is the number of MIGletMessage.command_ack.
const ackField = 2

// To what an ack that is larger than maxAgentMessage is truncated, in bytes.
const (
	// maxAckMessage is for the message, and maxAckValue for each value of the result. Both are
	// cut between characters.
	maxAckMessage = 4 << 10
	maxAckValue   = 4 << 10
	// maxAckResult is for the keys and values of the result together. Entries are kept in the
	// order of their keys; one that does not fit is left out.
	maxAckResult = 32 << 10
)

// truncateAck returns a copy of the ack with its texts truncated. The copy shares no memory
// with the original.
func truncateAck(a fleet.Ack) fleet.Ack {
	a.Message = strings.Clone(clipText(a.Message, maxAckMessage))
	if a.Result == nil {
		return a
	}
	result, size := map[string]string{}, 0
	for _, key := range slices.Sorted(maps.Keys(a.Result)) {
		value := clipText(a.Result[key], maxAckValue)
		if size+len(key)+len(value) > maxAckResult {
			continue
		}
		size += len(key) + len(value)
		result[strings.Clone(key)] = strings.Clone(value)
	}
	a.Result = result
	return a
}

// clipText truncates a text to at most limit bytes, between characters.
func clipText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// salvageAck returns the ack in a MIGletMessage that may be malformed. It replaces invalid
// UTF-8 in texts, and leaves out what cannot be decoded. It returns false unless the message
// is an ack whose command_id and success are certain: success is not on the wire when it is
// false, so it is certain only if it is present or the whole message could be read.
func salvageAck(b []byte) (fleet.Ack, bool) {
	var s salvagedAck
	walk(b, func(number protowire.Number, form protowire.Type, value []byte) {
		switch {
		case form != protowire.BytesType || number < 1 || int(number) >= len(kinds):
		case number == ackField:
			content, _ := protowire.ConsumeBytes(value)
			s.read(content)
		default: // another message replaces the ack
			s = salvagedAck{}
		}
	})
	return s.ack, s.ack.CommandID != "" && (s.successSeen || !s.cut)
}

// salvagedAck is the part of an ack that could be decoded.
type salvagedAck struct {
	ack         fleet.Ack
	successSeen bool
	cut         bool // some of it could not be decoded
}

func (s *salvagedAck) read(b []byte) {
	whole := walk(b, func(number protowire.Number, form protowire.Type, value []byte) {
		switch {
		case number == 1 && form == protowire.BytesType:
			id, _ := protowire.ConsumeBytes(value)
			s.ack.CommandID = fleet.CommandID(id) // never repaired: it would be another id
		case number == 2 && form == protowire.VarintType:
			success, _ := protowire.ConsumeVarint(value)
			s.ack.Success, s.successSeen = protowire.DecodeBool(success), true
		case number == 3 && form == protowire.BytesType:
			s.ack.Message = validText(value)
		case number == 4 && form == protowire.BytesType:
			s.readResult(value)
		}
	})
	s.cut = s.cut || !whole
}

func (s *salvagedAck) readResult(field []byte) {
	entry, _ := protowire.ConsumeBytes(field)
	var key, value string
	whole := walk(entry, func(number protowire.Number, form protowire.Type, text []byte) {
		switch {
		case number == 1 && form == protowire.BytesType:
			key = validText(text)
		case number == 2 && form == protowire.BytesType:
			value = validText(text)
		}
	})
	if !whole {
		return
	}
	if s.ack.Result == nil {
		s.ack.Result = map[string]string{}
	}
	s.ack.Result[key] = value
}

// validText returns a text field with U+FFFD in place of invalid UTF-8.
func validText(field []byte) string {
	text, _ := protowire.ConsumeBytes(field)
	return strings.ToValidUTF8(string(text), "\uFFFD")
}

// walk calls visit with each field of a message and its undecoded value until the message is
// malformed, and reports whether it reached the end.
func walk(b []byte, visit func(number protowire.Number, form protowire.Type, value []byte)) (whole bool) {
	for len(b) > 0 {
		number, form, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, form, b); n < 0 {
			return false
		}
		visit(number, form, b[:n])
		b = b[n:]
	}
	return true
}
