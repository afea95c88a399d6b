package rpc

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// heartbeatField is the number of MIGletMessage.heartbeat.
const heartbeatField = 4

// agentMessage is a message as received on an agent's stream: an encoded heartbeat, a decoded
// message, or a fault. To JSON decoders it is a MIGletMessage.
type agentMessage struct {
	// heartbeat is the encoded heartbeat of a message that has no other field.
	heartbeat []byte
	// message is nil if heartbeat or fault is set.
	message *commands.MIGletMessage
	// fault is why the message cannot be decoded.
	fault error
	// wire is the encoded message if it cannot be decoded or is larger than maxAgentMessage.
	wire []byte
	// size is the size of the encoded message in bytes; zero for JSON.
	size int
}

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
	m.size = len(b)
	if content := onlyField(b, heartbeatField); len(content) > 0 && len(b) <= maxAgentMessage {
		m.heartbeat = bytes.Clone(content) // connect-go reuses b
		return nil
	}
	message := new(commands.MIGletMessage)
	if m.fault = proto.Unmarshal(b, message); m.fault == nil {
		m.message = message
	}
	if m.fault != nil || len(b) > maxAgentMessage {
		m.wire = bytes.Clone(b)
	}
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
