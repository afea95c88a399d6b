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

// The body of a report is kept as it was sent over HTTP. As a google.protobuf.Struct its
// numbers would be doubles, which hold no whole number beyond 2⁵³ exactly.

type sentBodyKey struct{}

// withSentBody gives a call the body of its request, which is JSON, for sentBody.
func withSentBody(ctx context.Context, body []byte) context.Context {
	return context.WithValue(ctx, sentBodyKey{}, body)
}

// sentBody returns the body of a call's request; nil if the call did not come by a route.
func sentBody(ctx context.Context) []byte {
	body, _ := ctx.Value(sentBodyKey{}).([]byte)
	return body
}

// sentReport returns what is kept of a report, and the report for reading. It returns a
// *fleet.FieldError for the field when there is none or it is nested too deep.
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

// bodyOf returns what is kept of a report that is raw or else sent, and its members.
// Their numbers are a json.Number or a float64.
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

// decodeExactly decodes JSON, its numbers as they are written.
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

// greatest is, up to its sign, what stands for numbers beyond the range of a double. It
// is not longer than any of them.
const greatest = "1e308"

// withinDoubles returns a JSON text with greatest in place of the numbers that are beyond
// the range of a double, which decoders into a Struct do not accept. Everything stays
// where it is. What is not JSON stays so.
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

// numberLength returns how much of a text can be a number.
func numberLength(text []byte) int {
	rest := bytes.TrimLeft(text, "0123456789+-.eE")
	return len(text) - len(rest)
}

// beyondDoubles reports whether a number of JSON is beyond the range of a double.
func beyondDoubles(literal string) bool {
	_, err := strconv.ParseFloat(literal, 64)
	return errors.Is(err, strconv.ErrRange) && json.Valid([]byte(literal))
}

// bodyToProto shows what was kept of a report. What is not a JSON object is shown
// under the name body: one odd event does not spoil a page.
func bodyToProto(body json.RawMessage) *structpb.Struct {
	if len(body) == 0 {
		return nil
	}
	var value any
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
		// What json makes of a text is always fit for a Struct.
		return nil
	}
	return shown
}

// showNumbers returns a value with what a Struct can show in place of its numbers: a double,
// or the text of one that is a whole number beyond 2⁵³ or beyond the range of a double.
// Those inside an object or a list are replaced there.
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

// maxExact is up to where a double holds every whole number.
const maxExact = 1 << 53

// notObject is the rule that a body breaks which is not a JSON object.
func notObject(field string) error { return fleet.Invalid(field, "must be a JSON object") }
