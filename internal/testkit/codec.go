package testkit

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// RawCodec is a gRPC codec that can also send arbitrary bytes, valid or not.
type RawCodec struct{}

// Marshal implements encoding.Codec.
func (RawCodec) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case proto.Message:
		return proto.Marshal(v)
	default:
		return nil, fmt.Errorf("%T is neither bytes nor a message", v)
	}
}

// Unmarshal implements encoding.Codec.
func (RawCodec) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", v)
	}
	return proto.Unmarshal(data, m)
}

// Name implements encoding.Codec.
func (RawCodec) Name() string { return "proto" }
