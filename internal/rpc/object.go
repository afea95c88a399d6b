package rpc

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// object reads the members of a JSON object. A member that is missing, null or
// an empty text is absent, and reads as nothing.
type object struct {
	members map[string]*structpb.Value
	// prefix stands before the names of members in errors.
	prefix string
	// err is the *fleet.FieldError of the first member that broke its rule. All
	// objects of a report share it.
	err *error
}

// reportOf returns a report for reading, or a *fleet.FieldError for the field
// when there is none or it is nested too deep.
func reportOf(field string, sent *structpb.Struct) (object, error) {
	if sent == nil {
		return object{}, fleet.Invalid(field, "must be a JSON object")
	}
	if deeper(structpb.NewStructValue(sent), maxDepth) {
		return object{}, fleet.Invalid(field, "must be nested at most %d deep", maxDepth)
	}
	return object{members: sent.GetFields(), err: new(error)}, nil
}

// deeper reports whether v has more than limit objects and lists inside each
// other.
func deeper(v *structpb.Value, limit int) bool {
	inside := v.GetListValue().GetValues()
	if s := v.GetStructValue(); s != nil {
		inside = slices.Collect(maps.Values(s.GetFields()))
	} else if v.GetListValue() == nil {
		return false
	}
	return limit == 0 || slices.ContainsFunc(inside, func(v *structpb.Value) bool { return deeper(v, limit-1) })
}

func (o object) breaks(name, rule string, args ...any) {
	if *o.err == nil {
		*o.err = fleet.Invalid(o.prefix+name, rule, args...)
	}
}

// member returns a member's value, and nil when it is absent.
func (o object) member(name string) *structpb.Value {
	v := o.members[name]
	switch k := v.GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return nil
	case *structpb.Value_StringValue:
		if k.StringValue == "" {
			return nil
		}
	}
	return v
}

func (o object) text(name string) string {
	v := o.member(name)
	if v != nil && !isText(v) {
		o.breaks(name, "must be a text")
	}
	return v.GetStringValue()
}

// name reads a text; a number will do as well.
func (o object) name(name string) string {
	if n, ok := o.member(name).GetKind().(*structpb.Value_NumberValue); ok {
		return strconv.FormatFloat(n.NumberValue, 'f', -1, 64)
	}
	return o.text(name)
}

// number returns nil also for what is no figure: NaN and infinities, which
// Protobuf can carry and JSON cannot.
func (o object) number(name string) *float64 {
	v := o.member(name)
	if v == nil {
		return nil
	}
	if _, ok := v.GetKind().(*structpb.Value_NumberValue); !ok {
		o.breaks(name, "must be a number")
	}
	return finite(v.GetNumberValue())
}

// bytes reads a size given in units, and brings it into the range of an int64.
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

// time reads a time, and brings it to UTC.
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

// object reads an object; one that is absent has no members.
func (o object) object(name string) object {
	v := o.member(name)
	if v != nil && v.GetStructValue() == nil {
		o.breaks(name, "must be a JSON object")
	}
	return object{members: v.GetStructValue().GetFields(), prefix: o.prefix + name + ".", err: o.err}
}

// vm returns the VM that the request is for, which is also the only one that
// the object may name.
func (o object) vm(id string) fleet.VMID {
	if inside := o.text("vm_id"); inside != "" && inside != id {
		o.breaks("vm_id", "must be the VM that the request is for, or absent")
	}
	return fleet.VMID(id)
}
