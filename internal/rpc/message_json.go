package rpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// messageJSON returns the ProtoJSON form of an agent's message with the names of the schema,
// except that 64-bit integers are numbers: files are read with jq and scripts, most of which
// do not convert strings to numbers. NaN and infinities are strings, as in ProtoJSON. Fields
// are in the order of the schema, and the keys of maps are sorted.
//
// It returns an error for a string that is not UTF-8, and for types that no message of
// miglet.commands has.
func messageJSON(m proto.Message) ([]byte, error) { return appendMessage(nil, m.ProtoReflect()) }

func appendMessage(b []byte, m protoreflect.Message) ([]byte, error) {
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, string(fd.Name())), ':')
		var err error
		if b, err = appendField(b, fd, m.Get(fd)); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendField(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch {
	case fd.IsMap():
		return appendMap(b, fd, v.Map())
	case fd.IsList():
		return appendList(b, fd, v.List())
	default:
		return appendValue(b, fd, v)
	}
}

func appendList(b []byte, fd protoreflect.FieldDescriptor, list protoreflect.List) (_ []byte, err error) {
	b = append(b, '[')
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, fd, list.Get(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, fd protoreflect.FieldDescriptor, entries protoreflect.Map) (_ []byte, err error) {
	var keys []protoreflect.MapKey
	entries.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, func(x, y protoreflect.MapKey) int { return cmp.Compare(x.String(), y.String()) })
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendUTF8(b, key.String()); err != nil {
			return b, err
		}
		b = append(b, ':')
		if b, err = appendValue(b, fd.MapValue(), entries.Get(key)); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch v := v.Interface().(type) {
	case string:
		return appendUTF8(b, v)
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		return appendDouble(b, v), nil
	case protoreflect.Message:
		return appendMessage(b, v)
	default:
		return b, fmt.Errorf("field %s has a type without a form: %s", fd.FullName(), fd.Kind())
	}
}

func appendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 0):
		return append(b, map[bool]string{true: `"Infinity"`, false: `"-Infinity"`}[f > 0]...)
	default:
		number, _ := json.Marshal(f) //nolint:errchkjson // a finite number cannot fail
		return append(b, number...)
	}
}

func appendUTF8(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return b, errors.New("a text is not UTF-8")
	}
	text := bytes.NewBuffer(b)
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return bytes.TrimSuffix(text.Bytes(), []byte{'\n'}), err
}
