package rpc

import (
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// messageReader takes the messages of one session. Its methods return an error
// only when the session is over. It is for the one goroutine that reads the
// stream.
type messageReader struct {
	session    *session.Session
	heartbeats heartbeatReader
	// size is how many bytes the message has that is taken, and repeated whether it is a
	// heartbeat that repeats the one before.
	size     int
	repeated bool
}

// take takes a message, and counts it against the limits of its VM. One that is
// malformed or larger than maxAgentMessage is refused, except that an ack is taken as far
// as it can be: left unanswered, its command would be sent again and again.
func (r *messageReader) take(m *commands.MIGletMessage) error {
	if err := r.takeAny(m); err != nil {
		return err
	}
	if size := min(r.size, maxAgentMessage); r.repeated {
		r.session.ChargeHeartbeat(size)
	} else {
		r.session.Charge(size)
	}
	return nil
}

func (r *messageReader) takeAny(m *commands.MIGletMessage) error {
	b := undecoded(m)
	r.size, r.repeated = len(b), false
	if b == nil { // from JSON, or not so large that agentCodec leaves it undecoded
		return r.takeSized(m, proto.Size(m))
	}
	if len(b) <= maxAgentMessage {
		if content := onlyField(b, heartbeatField); content != nil {
			return r.takeHeartbeat(content)
		}
	}
	m = new(commands.MIGletMessage)
	if err := proto.Unmarshal(b, m); err != nil {
		return r.takeMalformed(b, err)
	}
	return r.takeSized(m, len(b))
}

func (r *messageReader) takeHeartbeat(b []byte) error {
	before := r.heartbeats.last
	h, err := r.heartbeats.read(b)
	if err != nil {
		r.session.Refuse(kindHeartbeat, err)
		return nil
	}
	r.repeated = repeats(h, before)
	return r.session.Heartbeat(h, func() ([]byte, error) {
		m, err := decodeHeartbeat(b)
		if err != nil {
			return nil, err
		}
		return messageJSON(m)
	})
}

// takeSized takes a message that could be decoded from so many bytes.
func (r *messageReader) takeSized(m *commands.MIGletMessage, size int) error {
	r.size = size
	if size <= maxAgentMessage {
		return r.takeDecoded(m)
	}
	if a := m.GetCommandAck(); a != nil {
		return r.takeTruncated(ackFromProto(a), size)
	}
	r.session.Refuse(kindOfMessage(m), tooLarge(size))
	return nil
}

func (r *messageReader) takeMalformed(b []byte, fault error) error {
	a, ok := salvageAck(b)
	switch {
	case ok && len(b) > maxAgentMessage:
		return r.takeTruncated(a, len(b))
	case ok:
		r.session.AckRepaired(a.CommandID, len(b), fault)
		return r.session.Ack(a)
	case len(b) > maxAgentMessage:
		fault = tooLarge(len(b))
	}
	r.session.Refuse(kindOf(b), fault)
	return nil
}

func (r *messageReader) takeTruncated(a fleet.Ack, size int) error {
	r.session.AckTruncated(a.CommandID, size, maxAgentMessage)
	return r.session.Ack(truncateAck(a))
}

func (r *messageReader) takeDecoded(m *commands.MIGletMessage) error {
	switch m := m.GetMessage().(type) {
	case *commands.MIGletMessage_CommandAck:
		return r.session.Ack(ackFromProto(m.CommandAck))
	case *commands.MIGletMessage_Event:
		e, err := eventFromProto(m.Event)
		if err != nil {
			r.session.Refuse(kindEvent, err)
			return nil
		}
		return r.session.Event(e)
	case *commands.MIGletMessage_Heartbeat:
		h := heartbeatFromProto(m.Heartbeat)
		r.repeated, r.heartbeats.last = repeats(h, r.heartbeats.last), h
		return r.session.Heartbeat(h, func() ([]byte, error) { return messageJSON(m.Heartbeat) })
	case *commands.MIGletMessage_Error:
		r.session.Reported(m.Error.GetCode(), m.Error.GetMessage())
	case *commands.MIGletMessage_Connect:
		r.session.Refuse(kindConnect, fleet.Invalid("connect", "must be sent once"))
	default:
		r.session.Refuse(kindUnknown, fleet.Invalid("message", "must be set"))
	}
	return nil
}

// The kinds of messages, as the log names them.
const (
	kindConnect   = "connect"
	kindAck       = "ack"
	kindEvent     = "event"
	kindHeartbeat = "heartbeat"
	kindError     = "error"
	kindUnknown   = "message"
)

// kinds are the kinds by the numbers of their fields in MIGletMessage.
var kinds = [...]string{
	1: kindConnect, ackField: kindAck, 3: kindEvent, heartbeatField: kindHeartbeat, 5: kindError,
}

// kindOf returns the kind of a message that need not be decodable: of several
// the last one counts.
func kindOf(b []byte) string {
	kind := kindUnknown
	walk(b, func(number protowire.Number, form protowire.Type, _ []byte) {
		if form == protowire.BytesType && int(number) < len(kinds) {
			kind = kinds[number]
		}
	})
	return kind
}

func kindOfMessage(m *commands.MIGletMessage) string {
	switch m.GetMessage().(type) {
	case *commands.MIGletMessage_Connect:
		return kindConnect
	case *commands.MIGletMessage_Event:
		return kindEvent
	case *commands.MIGletMessage_Heartbeat:
		return kindHeartbeat
	case *commands.MIGletMessage_Error:
		return kindError
	default:
		return kindUnknown
	}
}

func tooLarge(size int) error {
	return fmt.Errorf("its size of %d bytes exceeds the limit of %d bytes", size, maxAgentMessage)
}

// unrecognised returns an error when an undecoded message is too large or
// malformed and may be a ConnectRequest: there is nothing to wait for any more.
func unrecognised(b []byte) error {
	if kind := kindOf(b); kind != kindConnect && kind != kindUnknown {
		return nil
	}
	if len(b) > maxAgentMessage {
		return connect.NewError(connect.CodeResourceExhausted, tooLarge(len(b)))
	}
	if err := proto.Unmarshal(b, new(commands.MIGletMessage)); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}
