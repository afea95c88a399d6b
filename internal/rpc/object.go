package rpc

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// object reads the members of a JSON object. A member that is missing, null or an empty string
// is absent, and reads as the zero value.
type object struct {
	members map[string]any
	// prefix precedes the names of members in errors.
	prefix string
	// err is the *fleet.FieldError of the first invalid member. All objects of a report share
	// it.
	err *error
}

// reportOf returns the reader of a report, or a *fleet.FieldError for the field when it is
// nested too deeply.
func reportOf(field string, members map[string]any) (object, error) {
	if deeper(members, maxDepth) {
		return object{}, fleet.Invalid(field, "must be nested at most %d deep", maxDepth)
	}
	return object{members: members, err: new(error)}, nil
}

// deeper reports whether objects and lists in v are nested more than limit deep.
func deeper(v any, limit int) bool {
	var inside []any
	switch v := v.(type) {
	case map[string]any:
		inside = slices.Collect(maps.Values(v))
	case []any:
		inside = v
	default:
		return false
	}
	return limit == 0 || slices.ContainsFunc(inside, func(v any) bool { return deeper(v, limit-1) })
}

func (o object) breaks(name, rule string, args ...any) {
	if *o.err == nil {
		*o.err = fleet.Invalid(o.prefix+name, rule, args...)
	}
}

// member returns a member's value, and nil when it is absent.
func (o object) member(name string) any {
	v := o.members[name]
	if v == "" {
		return nil
	}
	return v
}

func (o object) text(name string) string {
	v := o.member(name)
	text, ok := v.(string)
	if v != nil && !ok {
		o.breaks(name, "must be a text")
	}
	return text
}

// name reads a string. It accepts a number too.
func (o object) name(name string) string {
	v := o.member(name)
	if literal, ok := v.(json.Number); ok {
		v = showNumber(literal.String())
	}
	switch n := v.(type) {
	case float64:
		return strconv.FormatFloat(n, 'f', -1, 64)
	case string:
		return n
	}
	return o.text(name)
}

// number returns nil for NaN and infinities, which are doubles in Protobuf and strings in
// JSON.
func (o object) number(name string) *float64 {
	switch v := o.member(name).(type) {
	case nil:
		return nil
	case float64:
		return finite(v)
	case json.Number:
		n, _ := v.Float64() // infinite beyond the range
		return finite(n)
	case string:
		if v == "NaN" || v == "Infinity" || v == "-Infinity" {
			return nil
		}
	}
	o.breaks(name, "must be a number")
	return nil
}

// bytes reads a size in units and clamps it to the range of an int64.
func (o object) bytes(name string, unit float64) int64 {
	n := o.number(name)
	switch {
	case n == nil || *n <= 0:
		return 0
	case *n >= math.MaxInt64/unit:
		return math.MaxInt64
	default:
		return int64(math.Round(*n * unit))
	}
}

// time reads a time and converts it to UTC.
func (o object) time(name string) time.Time {
	text := o.text(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if t = t.UTC(); err != nil || t.Year() < 1 || t.Year() > 9999 {
		o.breaks(name, "must be a time in RFC 3339, of the years 1 to 9999")
		return time.Time{}
	}
	return t
}

// object reads an object. An absent object has no members.
func (o object) object(name string) object {
	v := o.member(name)
	members, ok := v.(map[string]any)
	if v != nil && !ok {
		o.breaks(name, "must be a JSON object")
	}
	return object{members: members, prefix: o.prefix + name + ".", err: o.err}
}

// vm returns the VM of the request. The object must not name another one.
func (o object) vm(id string) fleet.VMID {
	if inside := o.text("vm_id"); inside != "" && inside != id {
		o.breaks("vm_id", "must be the VM that the request is for, or absent")
	}
	return fleet.VMID(id)
}
