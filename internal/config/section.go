package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// section is a value in a configuration file that is not that of an option.
type section struct {
	// name is its path, such as operators.oidc[0].issuer.
	name string
	file string
	line int
	// value is not an alias.
	value *yaml.Node
}

// invalid returns an error that names the value, the rule that it violates, and its place.
func (s section) invalid(rule string, args ...any) error {
	return fmt.Errorf("%w (from %s, line %d)", fleet.Invalid(s.name, rule, args...), s.file, s.line)
}

// within returns a part of the section.
func (s section) within(name string, line int, value *yaml.Node) section {
	return section{name: s.name + name, file: s.file, line: line, value: resolveAlias(value)}
}

// field is a part of a section that has a name.
type field struct {
	name     string
	required bool
	read     func(section) error
}

// fields reads a section with these fields. Others are errors, and so are fields that are set
// twice.
func (s section) fields(known ...field) error {
	names := make([]string, 0, len(known))
	for _, f := range known {
		names = append(names, f.name)
	}
	seen, err := s.pairs("must have fields: "+strings.Join(names, ", "), func(name string, value section) error {
		i := slices.Index(names, name)
		if i < 0 {
			return value.unknown(name, names)
		}
		return known[i].read(value)
	})
	if err != nil {
		return err
	}
	for _, f := range known {
		if f.required && !slices.Contains(seen, f.name) {
			return s.invalid("needs the field %s", f.name)
		}
	}
	return nil
}

// pairs calls read with each name and value of the section, and returns the names. rule is that
// of sections without names.
func (s section) pairs(rule string, read func(name string, value section) error) ([]string, error) {
	if s.value.Kind != yaml.MappingNode {
		return nil, s.invalid("%s", rule)
	}
	var seen []string
	for i := 0; i+1 < len(s.value.Content); i += 2 {
		key := resolveAlias(s.value.Content[i])
		value := s.within("."+key.Value, s.value.Content[i].Line, s.value.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			return nil, s.invalid("%s", rule)
		}
		if slices.Contains(seen, key.Value) {
			return nil, value.invalid("must be set once")
		}
		seen = append(seen, key.Value)
		if err := read(key.Value, value); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// unknown returns the error for a field that does not exist; s is its value.
func (s section) unknown(name string, known []string) error {
	of := strings.TrimSuffix(s.name, "."+name)
	text := fmt.Sprintf("there is no field %q in %s", name, of)
	if i := slices.IndexFunc(known, func(k string) bool { return alike(name, k) }); i >= 0 {
		text += fmt.Sprintf("; did you mean %q?", known[i])
	} else {
		text += ", which can have " + strings.Join(known, ", ")
	}
	return fmt.Errorf("%s (from %s, line %d)", text, s.file, s.line)
}

// alike reports whether two names differ only in case, in the kind of the dashes and in the
// plural.
func alike(a, b string) bool {
	normal := func(name string) string {
		return strings.TrimSuffix(strings.ToLower(strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-")), "s")
	}
	return normal(a) == normal(b)
}

// items reads each item of a list, of which there must be one at least.
func items[T any](s section, limit int, read func(section) (T, error)) ([]T, error) {
	if s.value.Kind != yaml.SequenceNode || len(s.value.Content) == 0 || len(s.value.Content) > limit {
		return nil, s.invalid("must be a list of 1 to %d items", limit)
	}
	all := make([]T, 0, len(s.value.Content))
	for i, node := range s.value.Content {
		item, err := read(s.within(fmt.Sprintf("[%d]", i), node.Line, node))
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, nil
}

// text reads a text that keeps a rule.
func (s section) text(keeps func(string) bool, rule string) (string, error) {
	if s.value.Kind != yaml.ScalarNode || s.value.ShortTag() != "!!str" {
		return "", s.invalid("must be a text: put it in quotes")
	}
	if !keeps(s.value.Value) {
		return "", s.invalid("%s", rule)
	}
	return s.value.Value, nil
}
