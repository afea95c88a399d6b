package rpc

import (
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/rpc/heartbeat"
	"github.com/mig-controller/mig-controller/internal/session"
)

// messageReader applies the messages of one session. Its methods return an error only when the
// session has ended. It is for the one goroutine that reads the stream.
type messageReader struct {
	session    *session.Session
	heartbeats *heartbeat.Reader // nil before the first heartbeat
	// size is the size of the message being applied, and repeated whether it is a heartbeat
	// that repeats the previous one.
	size     int
	repeated bool
}

// readHeartbeat decodes a heartbeat.
func readHeartbeat(wire []byte) (fleet.Heartbeat, error) {
	m, err := decodeHeartbeat(wire)
	if err != nil {
		return fleet.Heartbeat{}, err
	}
	return heartbeatFromProto(m), nil
}

func decodeHeartbeat(wire []byte) (*commands.Heartbeat, error) {
	m := new(commands.Heartbeat)
	return m, proto.Unmarshal(wire, m)
}

// apply applies a message, and charges it to its VM. A message that is malformed or larger
// than maxAgentMessage is refused, except that the readable part of an ack is applied: without
// it, its command would be delivered again and again.
func (r *messageReader) apply(m *agentMessage) error {
	if err := r.applyAny(m); err != nil {
		return err
	}
	if size := min(r.size, maxAgentMessage); r.repeated {
		r.session.ChargeHeartbeat(size)
	} else {
		r.session.Charge(size)
	}
	return nil
}

func (r *messageReader) applyAny(m *agentMessage) error {
	r.size, r.repeated = len(m.wire), false
	if h := m.heartbeat(); len(h) > 0 && r.size <= maxAgentMessage {
		return r.applyHeartbeat(h)
	}
	message, fault := m.decode()
	switch {
	case fault != nil:
		return r.applyMalformed(m.wire, fault)
	case m.wire == nil: // from JSON
		r.size = proto.Size(message)
	}
	if r.size <= maxAgentMessage {
		return r.applyDecoded(message)
	}
	if a := message.GetCommandAck(); a != nil {
		return r.applyTruncated(ackFromProto(a), r.size)
	}
	r.session.Refuse(kindOfMessage(message), tooLarge(r.size))
	return nil
}

// applyHeartbeat applies an encoded heartbeat.
func (r *messageReader) applyHeartbeat(wire []byte) error {
	if r.heartbeats == nil {
		r.heartbeats = heartbeat.NewReader(readHeartbeat)
	}
	h, repeated, err := r.heartbeats.Read(wire)
	if err != nil {
		r.session.Refuse(session.KindHeartbeat, err)
		return nil
	}
	r.repeated = repeated
	return r.session.Heartbeat(h, func() ([]byte, error) {
		m, err := decodeHeartbeat(wire)
		if err != nil {
			return nil, err
		}
		return messageJSON(m)
	})
}

func (r *messageReader) applyMalformed(b []byte, fault error) error {
	a, ok := salvageAck(b)
	switch {
	case ok && len(b) > maxAgentMessage:
		return r.applyTruncated(a, len(b))
	case ok:
		r.session.AckRepaired(a.CommandID, len(b), fault)
		return r.session.Ack(a)
	case len(b) > maxAgentMessage:
		fault = tooLarge(len(b))
	}
	r.session.Refuse(kindOf(b), fault)
	return nil
}

func (r *messageReader) applyTruncated(a fleet.Ack, size int) error {
	r.session.AckTruncated(a.CommandID, size, maxAgentMessage)
	return r.session.Ack(truncateAck(a))
}

func (r *messageReader) applyDecoded(m *commands.MIGletMessage) error {
	switch m := m.GetMessage().(type) {
	case *commands.MIGletMessage_CommandAck:
		return r.session.Ack(ackFromProto(m.CommandAck))
	case *commands.MIGletMessage_Event:
		e, err := eventFromProto(m.Event)
		if err != nil {
			r.session.Refuse(session.KindEvent, err)
			return nil
		}
		return r.session.Event(e)
	case *commands.MIGletMessage_Heartbeat:
		wire, err := proto.Marshal(m.Heartbeat)
		if err != nil {
			r.session.Refuse(session.KindHeartbeat, err)
			return nil
		}
		return r.applyHeartbeat(wire)
	case *commands.MIGletMessage_Error:
		r.session.Reported(m.Error.GetCode(), m.Error.GetMessage())
	case *commands.MIGletMessage_Connect:
		r.session.Refuse(session.KindConnect, fleet.Invalid("connect", "must be sent once"))
	default:
		r.session.Refuse(session.KindOther, fleet.Invalid("message", "must be set"))
	}
	return nil
}

// kinds are the kinds by their field numbers in MIGletMessage.
var kinds = [...]session.MessageKind{
	1: session.KindConnect, ackField: session.KindAck, 3: session.KindEvent, heartbeatField: session.KindHeartbeat, 5: session.KindError,
}

// kindOf returns the kind of a message that may be malformed. If it has several, the last one
// counts.
func kindOf(b []byte) session.MessageKind {
	kind := session.KindOther
	walk(b, func(number protowire.Number, form protowire.Type, _ []byte) {
		if form == protowire.BytesType && int(number) < len(kinds) {
			kind = kinds[number]
		}
	})
	return kind
}

func kindOfMessage(m *commands.MIGletMessage) session.MessageKind {
	switch m.GetMessage().(type) {
	case *commands.MIGletMessage_Connect:
		return session.KindConnect
	case *commands.MIGletMessage_Event:
		return session.KindEvent
	case *commands.MIGletMessage_Heartbeat:
		return session.KindHeartbeat
	case *commands.MIGletMessage_Error:
		return session.KindError
	default:
		return session.KindOther
	}
}

func tooLarge(size int) error {
	return fmt.Errorf("its size of %d bytes exceeds the limit of %d bytes", size, maxAgentMessage)
}

// unrecognised returns an error when an encoded message is too large or malformed, as fault
// says, and may be the ConnectRequest: no other one will follow.
func unrecognised(wire []byte, fault error) error {
	if fault == nil && len(wire) <= maxAgentMessage {
		return nil
	}
	if kind := kindOf(wire); kind != session.KindConnect && kind != session.KindOther {
		return nil
	}
	if len(wire) > maxAgentMessage {
		return connect.NewError(connect.CodeResourceExhausted, tooLarge(len(wire)))
	}
	return connect.NewError(connect.CodeInvalidArgument, fault)
}
