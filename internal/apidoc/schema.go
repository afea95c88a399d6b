// Package apidoc owns the two descriptions of the API: docs/api.md for people and the OpenAPI
// document for tools. Both are generated from the schema, its comments, and the calls in this
// package. Its tests write both, and compare every call, response and schema in them with a
// real controller. No program imports it: rpc embeds the generated OpenAPI document.
package apidoc

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Schema is the schema in proto/, with its comments.
type Schema struct {
	files linker.Files
}

// Load reads the schema from a directory.
func Load(ctx context.Context, dir string) (Schema, error) {
	names, err := fs.Glob(os.DirFS(dir), "*/*/*.proto")
	if err != nil {
		return Schema{}, fmt.Errorf("load schema: %w", err)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return Schema{}, fmt.Errorf("load schema: %w", err)
	}
	return Schema{files}, nil
}

func (s Schema) service(name protoreflect.FullName) protoreflect.ServiceDescriptor {
	return find[protoreflect.ServiceDescriptor](s, name)
}

func (s Schema) message(name protoreflect.FullName) protoreflect.MessageDescriptor {
	return find[protoreflect.MessageDescriptor](s, name)
}

// find panics if the name does not exist: names are constants.
func find[D protoreflect.Descriptor](s Schema, name protoreflect.FullName) D {
	found, err := s.files.AsResolver().FindDescriptorByName(name)
	d, ok := found.(D)
	if !ok {
		panic(fmt.Sprintf("apidoc: find %s: %v", name, err))
	}
	return d
}

// method returns the method of that name of a service with unary methods.
func (s Schema) method(name string) protoreflect.MethodDescriptor {
	for _, service := range []protoreflect.FullName{adminService, accessService} {
		if m := s.service(service).Methods().ByName(protoreflect.Name(name)); m != nil {
			return m
		}
	}
	return s.service(agentService).Methods().ByName(protoreflect.Name(name))
}

// comment returns the leading comment of d, as paragraphs of one line each.
func comment(d protoreflect.Descriptor) string {
	var paragraphs []string
	said := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	for paragraph := range strings.SplitSeq(said, "\n\n") {
		paragraphs = append(paragraphs, strings.Join(strings.Fields(paragraph), " "))
	}
	return strings.TrimSpace(strings.Join(paragraphs, "\n\n"))
}

// summary returns the first sentence of a comment without its full stop.
func summary(comment string) string {
	first, _, _ := strings.Cut(comment, ". ")
	return strings.TrimSuffix(first, ".")
}

// isWellKnown reports whether a message has a special JSON form.
func isWellKnown(m protoreflect.MessageDescriptor) bool {
	return m.ParentFile().Package() == "google.protobuf"
}

// reach returns the messages and enums that are reachable from the roots, including the roots,
// each once and in the order of the fields.
func reach(roots ...protoreflect.MessageDescriptor) []protoreflect.Descriptor {
	var met []protoreflect.Descriptor
	seen := map[protoreflect.FullName]bool{}
	meet := func(d protoreflect.Descriptor) (first bool) {
		first = !seen[d.FullName()]
		if first {
			seen[d.FullName()] = true
			met = append(met, d)
		}
		return first
	}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if isWellKnown(m) || !m.IsMapEntry() && !meet(m) {
			return
		}
		for _, f := range fields(m) {
			if f.Enum() != nil {
				meet(f.Enum())
			}
			if f.Message() != nil {
				visit(f.Message())
			}
		}
	}
	for _, m := range roots {
		visit(m)
	}
	return met
}

func fields(m protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	return collect[protoreflect.FieldDescriptor](m.Fields())
}

func methods(s protoreflect.ServiceDescriptor) []protoreflect.MethodDescriptor {
	return collect[protoreflect.MethodDescriptor](s.Methods())
}

// collect returns the elements of one of protoreflect's lists.
func collect[D any](list interface {
	Len() int
	Get(int) D
},
) []D {
	all := make([]D, list.Len())
	for i := range all {
		all[i] = list.Get(i)
	}
	return all
}
