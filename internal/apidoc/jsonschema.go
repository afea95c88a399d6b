package apidoc

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonSchema is a JSON Schema.
type jsonSchema struct {
	Ref         string      `json:"$ref,omitempty"`
	Description string      `json:"description,omitempty"`
	Type        string      `json:"type,omitempty"`
	Format      string      `json:"format,omitempty"`
	Pattern     string      `json:"pattern,omitempty"`
	Minimum     *int        `json:"minimum,omitempty"`
	Maximum     *int        `json:"maximum,omitempty"`
	Encoding    string      `json:"contentEncoding,omitempty"`
	Enum        []string    `json:"enum,omitempty"`
	Examples    []any       `json:"examples,omitempty"`
	Items       *jsonSchema `json:"items,omitempty"`
	AnyOf       []any       `json:"anyOf,omitempty"`
	Properties  object      `json:"properties,omitempty"`
	Required    []string    `json:"required,omitempty"`
	// Additional is a *jsonSchema or a bool.
	Additional any `json:"additionalProperties,omitempty"`
}

// dialect is one of the two JSON forms of messages.
type dialect struct {
	// schemaNames means that names are snake_case, as in the schema, and zero values are
	// included. Otherwise names are lowerCamelCase, and zero values are left out.
	schemaNames bool
}

var (
	connectJSON = dialect{}
	routeJSON   = dialect{schemaNames: true}
)

func (d dialect) nameOf(f protoreflect.FieldDescriptor) string {
	if d.schemaNames {
		return string(f.Name())
	}
	return f.JSONName()
}

// ref returns a reference to a schema under components.
func ref(name protoreflect.Name) *jsonSchema {
	return &jsonSchema{Ref: "#/components/schemas/" + string(name)}
}

// message returns the schema of a message in responses.
func (d dialect) message(m protoreflect.MessageDescriptor) *jsonSchema {
	s := &jsonSchema{Type: "object", Description: comment(m), Properties: object{}}
	for _, f := range fields(m) {
		s.Properties = append(s.Properties, member{d.nameOf(f), d.field(f)})
		if d.schemaNames && (f.IsList() || f.IsMap() || !f.HasPresence()) {
			s.Required = append(s.Required, d.nameOf(f))
		}
	}
	for i := range m.Oneofs().Len() {
		if o := m.Oneofs().Get(i); !o.IsSynthetic() {
			s.Description += "\n\n" + d.oneof(o)
		}
	}
	return s
}

func (d dialect) oneof(o protoreflect.OneofDescriptor) string {
	var names []string
	for _, f := range collect[protoreflect.FieldDescriptor](o.Fields()) {
		names = append(names, d.nameOf(f))
	}
	return fmt.Sprintf("At most one of %s is set. %s", strings.Join(names, ", "), comment(o))
}

func (d dialect) field(f protoreflect.FieldDescriptor) *jsonSchema {
	s := d.value(f)
	switch {
	case f.IsMap():
		s = &jsonSchema{Type: "object", Additional: d.value(f.MapValue())}
	case f.IsList():
		s = &jsonSchema{Type: "array", Items: s}
	}
	s.Description = strings.TrimSpace(comment(f) + " " + s.Description)
	return s
}

// value returns the schema of one value of the field.
func (d dialect) value(f protoreflect.FieldDescriptor) *jsonSchema {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return &jsonSchema{Type: "boolean"}
	case protoreflect.StringKind:
		return &jsonSchema{Type: "string"}
	case protoreflect.Int32Kind:
		return &jsonSchema{Type: "integer", Format: "int32"}
	case protoreflect.Int64Kind:
		return &jsonSchema{Type: "string", Format: "int64", Pattern: "^-?[0-9]+$", Examples: []any{"42"}}
	case protoreflect.DoubleKind:
		return &jsonSchema{Type: "number", Format: "double"}
	case protoreflect.EnumKind:
		return ref(f.Enum().Name())
	case protoreflect.MessageKind:
		if isWellKnown(f.Message()) {
			return wellKnown(f.Message())
		}
		return ref(f.Message().Name())
	default:
		panic(fmt.Sprintf("apidoc: %s is of an unknown kind: define its JSON here", f.FullName()))
	}
}

func wellKnown(m protoreflect.MessageDescriptor) *jsonSchema {
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return &jsonSchema{Type: "string", Format: "date-time", Examples: []any{"2026-01-02T03:04:05Z"}}
	case "google.protobuf.Duration":
		return &jsonSchema{Type: "string", Pattern: `^-?[0-9]+(\.[0-9]{1,9})?s$`, Examples: []any{"1.5s"}}
	case "google.protobuf.Struct":
		return &jsonSchema{Type: "object", Additional: true}
	case "google.protobuf.ListValue":
		return &jsonSchema{Type: "array", Items: &jsonSchema{}}
	default:
		panic(fmt.Sprintf("apidoc: %s is an unknown message: define its JSON here", m.FullName()))
	}
}

func enum(e protoreflect.EnumDescriptor) *jsonSchema {
	s := &jsonSchema{Type: "string", Description: comment(e) + "\n"}
	for _, v := range values(e) {
		s.Enum = append(s.Enum, string(v.Name()))
		s.Description += "\n- `" + string(v.Name()) + "`: " + comment(v)
	}
	return s
}

func values(e protoreflect.EnumDescriptor) []protoreflect.EnumValueDescriptor {
	return collect[protoreflect.EnumValueDescriptor](e.Values())
}
