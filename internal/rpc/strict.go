package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/internal/fleet"
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

// malformedValue matches the errors that end with a value from where a parameter of a command
// can be, which may be a secret.
var malformedValue = regexp.MustCompile(
	`(?s)(invalid value for \w+ field value:|syntax error \(line \d+:\d+\): (?:unexpected token|invalid value|invalid \S+ code)) +["\w.+\\-].*`)

// Unmarshal implements connect.Codec. Its error names what is unknown or malformed, and the
// position, but no value of a parameter.
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
	text = malformedValue.ReplaceAllString(text, "$1 "+fleet.Hidden)
	return fmt.Errorf("the request must match the schema: %s", text)
}
