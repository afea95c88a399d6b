package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// heartbeatField is the number of MIGletMessage.heartbeat.
const heartbeatField = 4

// agentMessage is a message as received on an agent's stream. To JSON decoders it is a
// MIGletMessage.
type agentMessage struct {
	// wire is the encoded message; nil for JSON. The codec does not decode it: that would grow
	// the stack of the stream's goroutine, which waits for messages most of the time, by 4 KB.
	wire []byte
	// message is the message from JSON.
	message *commands.MIGletMessage
}

// decode returns the decoded message.
func (m *agentMessage) decode() (*commands.MIGletMessage, error) {
	if m.wire == nil {
		return m.message, nil
	}
	message := new(commands.MIGletMessage)
	return message, proto.Unmarshal(m.wire, message)
}

// heartbeat returns the encoded heartbeat of a message that has no other field; nil for any
// other message.
func (m *agentMessage) heartbeat() []byte { return onlyField(m.wire, heartbeatField) }

// ProtoReflect implements proto.Message.
func (m *agentMessage) ProtoReflect() protoreflect.Message {
	if m.message == nil {
		m.message = new(commands.MIGletMessage)
	}
	return m.message.ProtoReflect()
}

// agentCodec is the codec of binary Protobuf, except that decoding an agentMessage never
// fails: an error would end its stream.
type agentCodec struct{}

// Name implements connect.Codec.
func (agentCodec) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (agentCodec) Marshal(m any) ([]byte, error) { return proto.Marshal(m.(proto.Message)) } //nolint:errcheck,forcetypeassert // of generated handlers

// MarshalAppend lets connect-go reuse its buffers.
func (agentCodec) MarshalAppend(b []byte, m any) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(b, m.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
}

// Unmarshal implements connect.Codec.
func (agentCodec) Unmarshal(b []byte, to any) error {
	m, ok := to.(*agentMessage)
	if !ok {
		return proto.Unmarshal(b, to.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
	}
	m.wire = append([]byte{}, b...) // connect-go reuses b
	return nil
}

// onlyField returns the content of a length-delimited field if the message has no other field,
// and nil otherwise.
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
