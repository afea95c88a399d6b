package apidoc

import (
	_ "embed"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/template"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

//go:embed api.md.tmpl
var pageText string

var pageTemplate = template.Must(template.New("api.md").Funcs(template.FuncMap{
	"anchor":      strings.ToLower,
	"cell":        cell,
	"comment":     comment,
	"fields":      fields,
	"methods":     methods,
	"path":        pathOf,
	"operators":   isForOperators,
	"pure":        hasNoSideEffects,
	"requirement": requirementOf,
	"requires":    requirementText,
	"status":      statusText,
	"summary":     func(d protoreflect.Descriptor) string { return summary(comment(d)) },
	"type":        typeText,
	"values":      values,
}).Parse(pageText))

// page is the data of the template.
type page struct {
	Services []protoreflect.ServiceDescriptor
	// Messages and Enums are those that are not shown with a method.
	Messages []protoreflect.MessageDescriptor
	Enums    []protoreflect.EnumDescriptor
	Reasons  []reason
	calls    []shownCall
}

type shownCall struct {
	Says, Command string
	Answer        Answer
	section       string
}

// reason is an error reason with its code and status.
type reason struct {
	Name, Code, Meaning string
	Status              int
}

// Page returns docs/api.md with these answers to the calls.
func (s Schema) Page(answers []Answer) (string, error) {
	p := page{Services: []protoreflect.ServiceDescriptor{
		s.service(adminService), s.service(agentService), s.service(streamService), s.service(accessService),
	}}
	var roots, shown []protoreflect.MessageDescriptor
	for _, service := range p.Services {
		for _, m := range methods(service) {
			roots = append(roots, m.Input(), m.Output())
			if !m.IsStreamingClient() {
				shown = append(shown, m.Input(), m.Output())
			}
		}
	}
	detail := s.message(errorDetail)
	for _, found := range reach(append(roots, detail)...) {
		switch found := found.(type) {
		case protoreflect.EnumDescriptor:
			p.Enums = append(p.Enums, found)
		case protoreflect.MessageDescriptor:
			if !slices.Contains(shown, found) {
				p.Messages = append(p.Messages, found)
			}
		}
	}
	p.Reasons = reasonsOf(detail.Fields().ByName("reason").Enum())
	for i, command := range s.commands(answers) {
		p.calls = append(p.calls, shownCall{calls[i].title, command, answers[i], calls[i].section()})
	}
	var b strings.Builder
	if err := pageTemplate.Execute(&b, p); err != nil {
		return "", fmt.Errorf("write the page: %w", err)
	}
	return b.String(), nil
}

// CallsOf returns the calls in the section of the method.
func (p page) CallsOf(m protoreflect.MethodDescriptor) []shownCall {
	var out []shownCall
	for _, c := range p.calls {
		if c.section == string(m.Name()) {
			out = append(out, c)
		}
	}
	return out
}

// reasonsOf returns the reasons whose comments name a code.
func reasonsOf(e protoreflect.EnumDescriptor) []reason {
	var out []reason
	for _, v := range values(e) {
		for _, code := range codesIn(comment(v)) {
			out = append(out, reason{string(v.Name()), code.String(), comment(v), statuses[code]})
		}
	}
	return out
}

// Codes are all codes with their statuses.
func (page) Codes() []reason {
	var out []reason
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		out = append(out, reason{Code: code.String(), Status: statuses[code]})
	}
	return out
}

func hasNoSideEffects(m protoreflect.MethodDescriptor) bool {
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// typeText returns the type of a field, with a link to its description.
func typeText(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map of %s to %s", typeText(f.MapKey()), typeText(f.MapValue()))
	case f.IsList():
		return "list of " + single(f)
	default:
		return single(f)
	}
}

func single(f protoreflect.FieldDescriptor) string {
	var named protoreflect.Descriptor
	switch {
	case f.Enum() != nil:
		named = f.Enum()
	case f.Message() != nil && isWellKnown(f.Message()):
		return string(f.Message().Name())
	case f.Message() != nil:
		named = f.Message()
	default:
		return f.Kind().String()
	}
	return fmt.Sprintf("[%s](#%s)", named.Name(), strings.ToLower(string(named.Name())))
}

// cell returns a text for a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("\n\n", "<br>", "|", `\|`, "<", "&lt;").Replace(text)
}

func statusText(status int) string { return fmt.Sprintf("%d %s", status, http.StatusText(status)) }
