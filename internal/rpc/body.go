package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The body of a report over HTTP is stored as it was sent. A google.protobuf.Struct would turn
// its numbers into doubles, which are not exact for integers beyond 2⁵³.

type sentBodyKey struct{}

// withSentBody returns a context with the JSON body of a request, for sentBody.
func withSentBody(ctx context.Context, body []byte) context.Context {
	return context.WithValue(ctx, sentBodyKey{}, body)
}

// sentBody returns the body of a call's request; nil if the call did not arrive by a route.
func sentBody(ctx context.Context) []byte {
	body, _ := ctx.Value(sentBodyKey{}).([]byte)
	return body
}

// sentReport returns the body of a report to store, and its members. It returns a
// *fleet.FieldError for the field when the report is missing or nested too deeply.
func sentReport(ctx context.Context, field string, sent *structpb.Struct) (json.RawMessage, object, error) {
	if sent == nil {
		return nil, object{}, notObject(field)
	}
	body, members, err := bodyOf(sentBody(ctx), sent)
	if err != nil {
		return nil, object{}, notObject(field)
	}
	o, err := reportOf(field, members)
	return body, o, err
}

// bodyOf returns the body to store of a report, from raw if there is one and from sent
// otherwise, and its members, in which a number is a json.Number or a float64.
func bodyOf(raw []byte, sent *structpb.Struct) (body json.RawMessage, members map[string]any, err error) {
	if raw == nil {
		members = sent.AsMap()
		body, err = json.Marshal(members)
		return body, members, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, raw)
	if err == nil {
		err = decodeExactly(raw, &members)
	}
	return compact.Bytes(), members, err
}

// decodeExactly decodes JSON without loss of precision in its numbers.
func decodeExactly(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value")
	}
	return nil
}

// greatest replaces numbers beyond the range of a double, apart from the sign. It is not
// longer than any of them.
const greatest = "1e308"

// withinDoubles returns a JSON text in which greatest replaces numbers beyond the range of a
// double, which decoders into a Struct do not accept. The replacements are in place and
// padded, and invalid JSON stays invalid.
func withinDoubles(text []byte) []byte {
	quoted, copied := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '-' || c >= '0' && c <= '9'):
			end := i + numberLength(text[i:])
			if literal := string(text[i:end]); beyondDoubles(literal) {
				if !copied {
					text, copied = bytes.Clone(text), true
				}
				sign := strings.Repeat("-", strings.Count(literal[:1], "-"))
				copy(text[i:end], sign+greatest+strings.Repeat(" ", len(literal)))
			}
			i = end - 1
		}
	}
	return text
}

// numberLength returns the length of the longest prefix that can be a number.
func numberLength(text []byte) int {
	rest := bytes.TrimLeft(text, "0123456789+-.eE")
	return len(text) - len(rest)
}

// beyondDoubles reports whether a JSON number is beyond the range of a double.
func beyondDoubles(literal string) bool {
	_, err := strconv.ParseFloat(literal, 64)
	return errors.Is(err, strconv.ErrRange) && json.Valid([]byte(literal))
}

// bodyToProto converts the stored body of a report, without secrets, which earlier versions
// have stored. A body that is not a JSON object becomes the member "body", so that one malformed
// event does not fail a whole list.
func bodyToProto(body json.RawMessage) *structpb.Struct {
	if len(body) == 0 {
		return nil
	}
	var value any
	body = fleet.WithoutSecretMembers(body)
	if err := decodeExactly(body, &value); err != nil {
		value = strings.ToValidUTF8(string(body), "\uFFFD")
	}
	object, ok := value.(map[string]any)
	if !ok {
		object = map[string]any{"body": value}
	}
	showNumbers(object)
	shown, err := structpb.NewStruct(object)
	if err != nil {
		// A string that json has decoded is always valid in a Struct.
		return nil
	}
	return shown
}

// showNumbers converts the numbers in a value to what a Struct can hold: a double, or a string
// for an integer beyond 2⁵³ or a number beyond the range of a double. It modifies objects and
// lists in place.
func showNumbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = showNumbers(member)
		}
	case []any:
		for i, entry := range v {
			v[i] = showNumbers(entry)
		}
	case json.Number:
		return showNumber(string(v))
	}
	return value
}

func showNumber(literal string) any {
	if !strings.ContainsAny(literal, ".eE") {
		if n, err := strconv.ParseInt(literal, 10, 64); err != nil || n > maxExact || n < -maxExact {
			return literal
		}
	}
	n, err := strconv.ParseFloat(literal, 64)
	if err != nil {
		return literal
	}
	return n
}

// maxExact is the largest number up to which a double holds every integer exactly.
const maxExact = 1 << 53

// notObject returns the error for a body that is not a JSON object.
func notObject(field string) error { return fleet.Invalid(field, "must be a JSON object") }
