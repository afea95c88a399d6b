package rpc

import (
	"math"
	"reflect"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Nearly all that agents say is heartbeats, and nearly all of a heartbeat is
// what the one before has said. So the codec of the agents' stream leaves them
// as they are, and a heartbeatReader for each stream decodes them into the
// domain's form and makes anew only what has changed.

// heartbeatField is the number of MIGletMessage.heartbeat.
const heartbeatField = 4

// agentCodec is the codec of binary Protobuf, except that it never fails to
// decode a MIGletMessage: one that is a heartbeat, is malformed or is larger than
// maxAgentMessage is kept undecoded among its unknown fields, and nothing else of
// it is set. See undecoded.
type agentCodec struct{}

// Name implements connect.Codec.
func (agentCodec) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (agentCodec) Marshal(m any) ([]byte, error) { return proto.Marshal(m.(proto.Message)) } //nolint:errcheck,forcetypeassert // of generated handlers

// MarshalAppend lets connect reuse its buffers.
func (agentCodec) MarshalAppend(b []byte, m any) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(b, m.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
}

// Unmarshal implements connect.Codec.
func (agentCodec) Unmarshal(b []byte, m any) error {
	message, ok := m.(*commands.MIGletMessage)
	if !ok {
		return proto.Unmarshal(b, m.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
	}
	if len(b) <= maxAgentMessage && len(onlyField(b, heartbeatField)) == 0 {
		if proto.Unmarshal(b, message) == nil {
			return nil
		}
		proto.Reset(message)
	}
	message.ProtoReflect().SetUnknown(append([]byte(nil), b...))
	return nil
}

// undecoded returns the bytes of a message of which nothing known is decoded; nil
// if there is something.
func undecoded(m *commands.MIGletMessage) []byte {
	if m.GetMessage() != nil {
		return nil
	}
	return m.ProtoReflect().GetUnknown()
}

// onlyField returns the content of a field with a length if the message is that
// field alone, and else nil.
func onlyField(b []byte, number protowire.Number) []byte {
	if len(b) == 0 || b[0] != byte(protowire.EncodeTag(number, protowire.BytesType)) {
		return nil
	}
	content, n := protowire.ConsumeBytes(b[1:])
	if n != len(b)-1 {
		return nil
	}
	return content
}

// decodeHeartbeat decodes all of a heartbeat.
func decodeHeartbeat(b []byte) (*commands.Heartbeat, error) {
	h := new(commands.Heartbeat)
	return h, proto.Unmarshal(b, h)
}

// heartbeatReader decodes the heartbeats of one stream.
type heartbeatReader struct{ last fleet.Heartbeat }

// read returns the heartbeat and what decodeHeartbeat says if it is malformed.
// Parts of it may be shared with those before it: none is ever changed.
func (r *heartbeatReader) read(b []byte) (fleet.Heartbeat, error) {
	h, ok := r.quick(b)
	if !ok {
		m, err := decodeHeartbeat(b)
		if err != nil {
			return fleet.Heartbeat{}, err
		}
		h = heartbeatFromProto(m)
	}
	r.last = h
	return h, nil
}

// repeats reports whether a heartbeat differs from the one before in figures and times
// alone, as most do.
func repeats(h, before fleet.Heartbeat) bool {
	return h.Pool == before.Pool && h.Org == before.Org && h.Status == before.Status &&
		(h.Runner == before.Runner || reflect.DeepEqual(h.Runner, before.Runner)) &&
		(h.Job == before.Job || reflect.DeepEqual(h.Job, before.Job))
}

// quick decodes a heartbeat of known fields that are there once each. It leaves
// all else, and every question of what is right, to the generated code.
func (r *heartbeatReader) quick(b []byte) (h fleet.Heartbeat, ok bool) {
	ok = eachField(b, unrepeated, func(number protowire.Number, f field) bool {
		switch number {
		case 1:
			return f.setText((*string)(&h.VM), string(r.last.VM))
		case 2:
			return f.setText(&h.Pool, r.last.Pool)
		case 3:
			return f.setText(&h.Org, r.last.Org)
		case 4:
			h.Health = new(fleet.Health)
			return f.message && readHealth(f.bytes, h.Health)
		case 5:
			h.Runner, ok = readRunner(f.bytes, r.last.Runner)
			return f.message && ok
		case 6:
			h.Job, ok = readJob(f.bytes, r.last.Job)
			return f.message && ok
		case 7:
			h.SentAt = fleet.AgentTime(int64(f.number))
			return f.varint
		case 8:
			return f.setText(&h.Status, r.last.Status)
		default:
			return false
		}
	})
	return h, ok
}

func readHealth(b []byte, h *fleet.Health) bool {
	percents := new([3]float64)
	targets := [...]**float64{&h.CPUPercent, &h.MemoryPercent, &h.DiskPercent}
	sizes := [...]*int64{&h.MemoryTotalBytes, &h.MemoryUsedBytes, &h.DiskTotalBytes, &h.DiskUsedBytes}
	ok := eachField(b, unrepeated, func(number protowire.Number, f field) bool {
		switch {
		case number >= 1 && number <= 3:
			percents[number-1] = math.Float64frombits(f.number)
			return f.fixed64
		case number >= 4 && number <= 7:
			*sizes[number-4] = int64(f.number)
			return f.varint
		default:
			return false
		}
	})
	percents[1] = fleet.UsedPercent(percents[1], h.MemoryUsedBytes, h.MemoryTotalBytes)
	percents[2] = fleet.UsedPercent(percents[2], h.DiskUsedBytes, h.DiskTotalBytes)
	for i, target := range targets {
		if !math.IsNaN(percents[i]) && !math.IsInf(percents[i], 0) {
			*target = &percents[i]
		}
	}
	return ok
}

func readRunner(b []byte, last *fleet.Runner) (*fleet.Runner, bool) {
	if last == nil {
		last = new(fleet.Runner)
	}
	var r fleet.Runner
	labels := labels{last: last.Labels}
	ok := eachField(b, labelsField, func(number protowire.Number, f field) bool {
		switch number {
		case 1:
			return f.setText(&r.State, last.State)
		case 2:
			r.Configured = f.number != 0
			return f.varint
		case 3:
			return f.setText(&r.Name, last.Name)
		case labelsField:
			return f.message && labels.add(f.bytes)
		default:
			return false
		}
	})
	if labels.unchanged() && r.State == last.State && r.Configured == last.Configured && r.Name == last.Name {
		return last, ok
	}
	changed := r // r itself need not outlive the call
	changed.Labels = labels.list()
	return &changed, ok
}

// labels are those of a runner: the first ones as they were last, and then the
// rest.
type labels struct {
	last []string
	same int
	rest []string
}

func (l *labels) add(b []byte) bool {
	if l.rest == nil && l.same < len(l.last) && string(b) == l.last[l.same] {
		l.same++
		return true
	}
	l.rest = append(l.rest, string(b))
	return utf8.Valid(b)
}

func (l *labels) unchanged() bool { return l.rest == nil && l.same == len(l.last) }

func (l *labels) list() []string {
	if l.rest == nil && l.same == 0 {
		return nil // whatever there was
	}
	return append(l.last[:l.same:l.same], l.rest...)
}

func readJob(b []byte, last *fleet.Job) (*fleet.Job, bool) {
	if last == nil {
		last = new(fleet.Job)
	}
	var j fleet.Job
	texts := [...]*string{&j.JobID, &j.RunID, &j.Repository, &j.Branch, &j.Commit, &j.Status}
	before := [...]string{last.JobID, last.RunID, last.Repository, last.Branch, last.Commit, last.Status}
	ok := eachField(b, unrepeated, func(number protowire.Number, f field) bool {
		switch {
		case number >= 1 && number <= 6:
			return f.setText(texts[number-1], before[number-1])
		case number == 7:
			j.StartedAt = fleet.AgentTime(int64(f.number))
			return f.varint
		default:
			return false
		}
	})
	if j == *last {
		return last, ok
	}
	changed := j // as above
	return &changed, ok
}

const (
	// labelsField is RunnerState.labels, the one repeated field.
	labelsField protowire.Number = 4
	// unrepeated is the number of no field.
	unrepeated protowire.Number = 0
)

// field is the value of one field, by its form on the wire.
type field struct {
	bytes                    []byte
	number                   uint64
	message, varint, fixed64 bool
}

// setText sets a text, without making one that is there already. It reports
// whether it is a text.
func (f field) setText(to *string, last string) bool {
	if string(f.bytes) == last {
		*to = last
		return f.message
	}
	*to = string(f.bytes)
	return f.message && utf8.Valid(f.bytes)
}

// eachField calls take with each field, and reports whether the message could be
// read and take was content. No field but the repeated one may be there twice.
func eachField(b []byte, repeated protowire.Number, take func(protowire.Number, field) bool) bool {
	var seen uint64
	for len(b) > 0 {
		number, form, n := protowire.ConsumeTag(b)
		if n < 0 || number > 63 || seen&(1<<number) != 0 && number != repeated {
			return false
		}
		seen |= 1 << number
		b = b[n:]
		var f field
		switch form {
		case protowire.BytesType:
			f.message = true
			f.bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			f.varint = true
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.fixed64 = true
			f.number, n = protowire.ConsumeFixed64(b)
		default:
			return false
		}
		if n < 0 || !take(number, f) {
			return false
		}
		b = b[n:]
	}
	return true
}
