package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strictJSON is the JSON of AdminService. It refuses unknown members: a misspelt filter must
// not match everything.
type strictJSON struct{ name string }

// withStrictJSON makes a service use strictJSON.
func withStrictJSON() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCodec(strictJSON{"json"}), connect.WithCodec(strictJSON{"json; charset=utf-8"}))
}

// Name implements connect.Codec.
func (c strictJSON) Name() string { return c.name }

// Marshal implements connect.Codec.
func (strictJSON) Marshal(m any) ([]byte, error) {
	return protojson.Marshal(m.(proto.Message)) //nolint:errcheck,forcetypeassert // of generated handlers
}

// Unmarshal implements connect.Codec. Its error names what is unknown or malformed, and the
// position.
func (strictJSON) Unmarshal(b []byte, m any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return errors.New("the request must be a JSON object, at least {}")
	}
	err := protojson.Unmarshal(b, m.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
	if err == nil {
		return nil
	}
	// The library deliberately varies the space after its name.
	text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	return fmt.Errorf("the request must match the schema: %s", text)
}
