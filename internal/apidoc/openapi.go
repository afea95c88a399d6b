package apidoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/internal/rpc"
)

const (
	adminService  = "migcontroller.v1.AdminService"
	accessService = "migcontroller.v1.AccessService"
	agentService  = "migcontroller.v1.AgentService"
	streamService = "miglet.commands.CommandService"
	errorDetail   = "migcontroller.v1.ErrorDetail"

	routesTag  = "AgentRoutes"
	jsonType   = "application/json"
	streamType = "application/connect+json"
	bearer     = "bearer"
)

const aboutBearer = `A token that the controller has issued, or an identity token of an issuer that it accepts.
An admin creates one with AccessService/CreateToken or "migctl token create".`

const about = `The API of the MIG Controller for operators, and the HTTP routes of agents.

In requests, names are accepted as they stand here and in snake_case, and 64-bit whole
numbers as texts and as numbers. AdminService and AccessService refuse members and names
of enum values that they do not know; the agents' routes ignore them. In the answers of
AdminService and AccessService what is zero, false or empty is left out.

Operators need credentials, a token or a client certificate, unless the controller serves
only its own machine, no issuer and no CA of operators is configured, and no token was
ever created. Each of their operations says which role it requires. The agents' routes
need no credentials.

The methods also speak gRPC, gRPC-Web and Connect with Protobuf. Those without side
effects also answer to GET, with the query ` + "`?connect=v1&encoding=json&message=`" + ` and the request.`

type document struct {
	OpenAPI    string     `json:"openapi"`
	Info       info       `json:"info"`
	Servers    []server   `json:"servers"`
	Security   []object   `json:"security"`
	Tags       []tag      `json:"tags"`
	Paths      object     `json:"paths"`
	Components components `json:"components"`
}

type info struct {
	Title       string  `json:"title"`
	Description string  `json:"description"`
	Version     string  `json:"version"`
	License     license `json:"license"`
}

type license struct {
	Name       string `json:"name"`
	Identifier string `json:"identifier"`
}

type server struct {
	URL         string `json:"url"`
	Description string `json:"description"`
}

type tag struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

type components struct {
	Schemas  object `json:"schemas"`
	Security object `json:"securitySchemes"`
}

// securityScheme is a way to authenticate.
type securityScheme struct {
	Type        string `json:"type"`
	Scheme      string `json:"scheme"`
	Description string `json:"description"`
}

type operation struct {
	ID          string      `json:"operationId"`
	Tags        []string    `json:"tags"`
	Summary     string      `json:"summary"`
	Description string      `json:"description"`
	Security    []object    `json:"security,omitzero"` // nil for that of the document
	Parameters  []parameter `json:"parameters,omitempty"`
	Request     *body       `json:"requestBody,omitempty"`
	Responses   object      `json:"responses"`
}

type parameter struct {
	Name        string      `json:"name"`
	In          string      `json:"in"`
	Description string      `json:"description"`
	Required    bool        `json:"required"`
	Schema      *jsonSchema `json:"schema"`
}

// body is a requestBody or a response.
type body struct {
	Description string `json:"description,omitempty"`
	Required    bool   `json:"required,omitempty"`
	Content     object `json:"content"`
}

type content struct {
	Schema   *jsonSchema `json:"schema"`
	Examples object      `json:"examples,omitempty"`
}

type example struct {
	Summary string `json:"summary"`
	Value   any    `json:"value"`
}

// OpenAPI returns the OpenAPI document of AdminService, of AccessService and of the agents'
// routes, with the calls as examples.
func (s Schema) OpenAPI() ([]byte, error) {
	agent := s.service(agentService)
	operators := []protoreflect.ServiceDescriptor{s.service(adminService), s.service(accessService)}
	doc := document{
		OpenAPI: "3.1.0",
		Info: info{
			Title: "MIG Controller", Description: about, Version: "v1",
			License: license{Name: "MIT", Identifier: "MIT"},
		},
		Servers:  []server{{URL: "/", Description: "The controller that serves this document."}},
		Security: []object{{}, {{bearer, []string{}}}}, // credentials may not be needed
		Components: components{
			Schemas:  s.components(operators, agent),
			Security: object{{bearer, securityScheme{"http", "bearer", aboutBearer}}},
		},
	}
	for _, service := range operators {
		doc.Tags = append(doc.Tags, tag{string(service.Name()), comment(service)})
		for _, m := range methods(service) {
			doc.Paths = append(doc.Paths, member{pathOf(m), object{{"post", s.operatorOperation(m)}}})
		}
	}
	doc.Tags = append(doc.Tags, tag{routesTag, comment(agent)})
	for _, r := range rpc.AgentRoutes() {
		m := agent.Methods().ByName(protoreflect.Name(r.RPC))
		doc.Paths = append(doc.Paths, member{r.Pattern, object{{strings.ToLower(r.Method), s.routeOperation(r, m)}}})
	}
	data, err := encode(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	text, err := indent(data)
	return []byte(text + "\n"), err
}

// routeOf returns the route of a method of AgentService.
func routeOf(method string) rpc.Route {
	routes := rpc.AgentRoutes()
	return routes[slices.IndexFunc(routes, func(r rpc.Route) bool { return r.RPC == method })]
}

// pathOf returns the Connect path of a method.
func pathOf(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

func (s Schema) components(operators []protoreflect.ServiceDescriptor, agent protoreflect.ServiceDescriptor) object {
	var out object
	var requests []protoreflect.MessageDescriptor // requests, whose unknown members are refused
	add := func(d dialect, roots ...protoreflect.MessageDescriptor) {
		for _, found := range reach(roots...) {
			name := string(found.Name())
			if slices.ContainsFunc(out, func(m member) bool { return m.name == name }) {
				continue
			}
			switch found := found.(type) {
			case protoreflect.EnumDescriptor:
				out = append(out, member{name, enum(found)})
			case protoreflect.MessageDescriptor:
				schema := d.message(found)
				if d == connectJSON {
					schema = constrain(found, schema)
				}
				if slices.Contains(requests, found) {
					schema.Additional = false
				}
				out = append(out, member{name, schema})
			}
		}
	}
	for _, service := range operators {
		for _, m := range methods(service) {
			requests = append(requests, m.Input())
			add(connectJSON, m.Input(), m.Output())
		}
	}
	for _, m := range methods(agent) {
		add(routeJSON, m.Output())
	}
	add(connectJSON, s.message(errorDetail))
	return append(out, member{"Error", errorSchema()}, member{"EndOfStream", endOfStream()})
}

func (s Schema) operatorOperation(m protoreflect.MethodDescriptor) operation {
	o := operation{
		ID: operationID(string(m.Parent().Name()), m), Tags: []string{string(m.Parent().Name())},
		Summary: summary(comment(m)), Description: comment(m) + "\n\n" + requirementText(m),
		Request: &body{Required: true, Content: object{{jsonType, content{ref(m.Input().Name()), examples(m, false)}}}},
	}
	answer := body{Description: comment(m.Output()), Content: object{{jsonType, content{Schema: ref(m.Output().Name())}}}}
	if m.IsStreamingServer() {
		o.Description += "\n\n" + envelopes
		o.Request.Content[0] = member{streamType, content{Schema: ref(m.Input().Name())}}
		answer.Content[0] = member{streamType, content{Schema: &jsonSchema{
			Description: "The JSON in each envelope.", AnyOf: []any{ref(m.Output().Name()), ref("EndOfStream")},
		}}}
	}
	o.Responses = object{{"200", answer}}
	if m.IsStreamingServer() {
		o.Responses = append(o.Responses, wrongMethod("unknown"), wrongType("unknown"))
		return o
	}
	o.Responses = append(o.Responses, errorResponses(s.codesOf(m), wrongMethod("unknown"), wrongType("unknown"))...)
	return o
}

// operationID returns the id of an operation. Generators derive names from it, such as that of
// its response, which must not be names of messages.
func operationID(tag string, m protoreflect.MethodDescriptor) string {
	return tag + "_" + string(m.Name())
}

// wrongMethod and wrongType are the responses to requests that cannot be such a call.
func wrongMethod(code string) member {
	return member{"405", errorResponse("Code " + code + ": another HTTP method.")}
}

func wrongType(code string) member {
	return member{"415", errorResponse("Code " + code + ": another content type.")}
}

func errorResponse(description string) body {
	return body{Description: description, Content: object{{jsonType, content{Schema: ref("Error")}}}}
}

func (s Schema) routeOperation(r rpc.Route, m protoreflect.MethodDescriptor) operation {
	vm := m.Input().Fields().ByName("vm_id")
	o := operation{
		ID: operationID(routesTag, m), Tags: []string{routesTag}, Summary: summary(comment(m)), Description: comment(m),
		Security:   []object{}, // none
		Parameters: []parameter{{"vm_id", "path", comment(vm), true, &jsonSchema{Type: "string", Pattern: "^" + idPattern + "$"}}},
		Responses: append(object{{"200", body{
			Description: comment(m.Output()), Content: object{{jsonType, content{Schema: ref(m.Output().Name())}}},
		}}}, errorResponses(s.codesOf(m), routeRefusals(r)...)...),
	}
	if r.Body == "" {
		return o
	}
	schema := routeJSON.message(m.Input())
	schema.Required = nil
	if r.Body != "*" {
		schema = routeJSON.field(m.Input().Fields().ByName(protoreflect.Name(r.Body)))
	}
	o.Request = &body{Required: true, Content: object{{jsonType, content{schema, examples(m, true)}}}}
	return o
}

func routeRefusals(r rpc.Route) []member {
	refusals := []member{wrongMethod("unimplemented")}
	if r.Body != "" {
		refusals = append(refusals, wrongType("invalid_argument"))
	}
	return refusals
}

// errorResponses returns a response for each status of the codes that a method may return,
// for requests that cannot be such a call, and one for all others.
func errorResponses(codes []connect.Code, refusals ...member) object {
	byStatus := map[string][]string{}
	for _, code := range codes {
		status := strconv.Itoa(statuses[code])
		byStatus[status] = append(byStatus[status], code.String())
	}
	out := object(refusals)
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		out = append(out, member{status, errorResponse("Code " + strings.Join(byStatus[status], " or ") + ".")})
	}
	slices.SortFunc(out, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return append(out, member{"default", errorResponse("Any other error.")})
}

// examples returns the successful example requests of a method or of its route.
func examples(m protoreflect.MethodDescriptor, route bool) object {
	var out object
	for _, c := range calls {
		if c.rpc == string(m.Name()) && c.in == "" && c.onRoute() == route && c.status == http.StatusOK && c.plain() {
			out = append(out, member{fmt.Sprintf("example%d", len(out)+1), example{c.title, json.RawMessage(c.body)}})
		}
	}
	return out
}

const envelopes = `The answer is a stream, with the status 200 whatever becomes of it. The request and each
message of the answer is an envelope: a byte of flags, the length of the JSON as four bytes,
the highest first, and the JSON. The last message of the answer has the flag 2 and is an
EndOfStream, with an error unless the stream ended well.`

func errorSchema() *jsonSchema {
	detail := &jsonSchema{
		Type: "object", Description: "A message that says more.",
		Properties: object{
			{"type", &jsonSchema{Type: "string", Description: "The name of the message, such as " + errorDetail + "."}},
			{"value", &jsonSchema{Type: "string", Encoding: "base64", Description: "The message as Protobuf, in base64 without padding."}},
			{"debug", ref("ErrorDetail")},
		},
		Required: []string{"type", "value"},
	}
	return &jsonSchema{
		Type: "object", Description: "Why a call was refused, in the form of Connect.",
		Properties: object{
			{"code", &jsonSchema{Type: "string", Enum: codeNames(), Description: "The kind of error."}},
			{"message", &jsonSchema{Type: "string", Description: "What is wrong, for people to read."}},
			{"details", &jsonSchema{Type: "array", Items: detail, Description: "What is wrong, for programs to read. The agents' routes send none."}},
		},
		Required: []string{"code"},
	}
}

func endOfStream() *jsonSchema {
	return &jsonSchema{
		Type: "object", Description: "The last message of a stream.",
		Properties: object{
			{"error", ref("Error")},
			{"metadata", &jsonSchema{
				Type: "object", Description: "Trailers by name.",
				Additional: &jsonSchema{Type: "array", Items: &jsonSchema{Type: "string"}},
			}},
		},
	}
}
