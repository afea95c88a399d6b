package rpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// maxBody is the most that the body of a request may have.
	maxBody = 64 << 10
	// maxTranscoded is the most that a body may have once it is Protobuf, in
	// which a list of small numbers has nearly six times its text.
	maxTranscoded = 8 * maxBody
	// maxAnswer is the most that an answer may have: a command at its largest,
	// with every character escaped.
	maxAnswer = 16 << 20
)

// Route is one of the HTTP routes for agents without a stream: a method of
// AgentService under another name.
type Route struct {
	Method, Pattern string
	// RPC is the method of AgentService.
	RPC string
	// Body is the field of its request that the body becomes; * is the request
	// itself, and with an empty one there is no body.
	Body string
}

// AgentRoutes returns the routes of the agents' contract.
func AgentRoutes() []Route { return slices.Clone(agentRoutes) }

var agentRoutes = []Route{
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/events", RPC: "ReportEvent", Body: "event"},
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/heartbeat", RPC: "ReportHeartbeat", Body: "heartbeat"},
	{Method: http.MethodGet, Pattern: "/api/v1/vms/{vm_id}/commands", RPC: "PollCommands"},
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/registration-token", RPC: "RequestRegistrationToken", Body: "*"},
}

func (r Route) rule() *annotations.HttpRule {
	rule := &annotations.HttpRule{Selector: migcontrollerv1connect.AgentServiceName + "." + r.RPC, Body: r.Body}
	if r.Method == http.MethodGet {
		rule.Pattern = &annotations.HttpRule_Get{Get: r.Pattern}
	} else {
		rule.Pattern = &annotations.HttpRule_Post{Post: r.Pattern}
	}
	return rule
}

// mountRoutes puts the routes on mux. Every answer is JSON, and every status
// but 200 comes with an errorBody.
func mountRoutes(mux *http.ServeMux, svc migcontrollerv1connect.AgentServiceHandler, opts ...connect.HandlerOption) {
	transcoder := newTranscoder(svc, opts...)
	for _, r := range agentRoutes {
		mux.Handle(r.Pattern, routeHandler{Route: r, next: transcoder})
	}
}

// newTranscoder returns a handler that makes calls of svc of requests that
// follow the routes. It panics when the routes do not fit the schema: both are
// constants.
func newTranscoder(svc migcontrollerv1connect.AgentServiceHandler, opts ...connect.HandlerOption) *vanguard.Transcoder {
	path, handler := migcontrollerv1connect.NewAgentServiceHandler(svc,
		connect.WithHandlerOptions(opts...),
		connect.WithReadMaxBytes(maxTranscoded),
		connect.WithCompression("gzip", nil, nil))
	var rules []*annotations.HttpRule
	for _, r := range agentRoutes {
		rules = append(rules, r.rule())
	}
	transcoder, err := vanguard.NewTranscoder(
		[]*vanguard.Service{vanguard.NewService(path, handler,
			vanguard.WithTargetProtocols(vanguard.ProtocolConnect),
			vanguard.WithTargetCodecs(vanguard.CodecProto),
			vanguard.WithNoTargetCompression(),
			vanguard.WithMaxMessageBufferBytes(maxAnswer))},
		vanguard.WithRules(rules...),
		vanguard.WithCodec(newRouteCodec),
		vanguard.WithUnknownHandler(http.HandlerFunc(writeNotFound)))
	if err != nil {
		panic(err)
	}
	return transcoder
}

// routeHandler lets only those requests of its route through to next that name
// a VM and are small and well formed, and hands on nothing of them but the VM,
// the body and the headers that are not about the form of the message.
type routeHandler struct {
	Route
	next http.Handler
}

// ServeHTTP answers one request.
func (h routeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != h.Method {
		writeNotAllowed(w, h.Method)
		return
	}
	vm, err := fleet.ParseVMID(r.PathValue("vm_id"))
	if err != nil {
		writeRefusal(w, refuse(http.StatusBadRequest, err.Error()))
		return
	}
	var body []byte
	if h.Body != "" {
		var no *refusal
		if body, no = h.readBody(w, r); no != nil {
			writeRefusal(w, no)
			return
		}
	}
	setAnswerHeaders(w.Header())
	h.next.ServeHTTP(w, h.rewrite(r, vm, body))
}

// rewrite returns the request that the transcoder gets to see. Queries are no
// part of the routes: to the transcoder they would be fields of the request.
func (h routeHandler) rewrite(r *http.Request, vm fleet.VMID, body []byte) *http.Request {
	ctx := r.Context()
	if h.Body != "" && h.Body != "*" {
		ctx = withSentBody(ctx, body)
		body = withinDoubles(body)
	}
	r = r.Clone(ctx)
	r.URL = &url.URL{Path: strings.Replace(h.Pattern, "{vm_id}", string(vm), 1)}
	for name := range r.Header {
		if aboutForm(name) {
			delete(r.Header, name)
		}
	}
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
	if h.Body != "" {
		r.Header.Set("Content-Type", contentJSON)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return r
}

// aboutForm reports whether a header says how the message is encoded or which
// protocol carries it. The routes have one form only.
func aboutForm(name string) bool {
	for _, prefix := range []string{"Connect-", "Content-", "Grpc-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"Te", "Trailer", "Expect", "X-Server-Timeout"}, name)
}

// readBody returns the whole body, once it is known to be a JSON object.
func (h routeHandler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	if types := r.Header.Values("Content-Type"); len(types) != 1 || !isJSON(types[0]) {
		return nil, refuse(http.StatusUnsupportedMediaType, "Content-Type must be application/json")
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, refuse(http.StatusUnsupportedMediaType, "Content-Encoding must be absent: the body must not be compressed")
	}
	body, err := readAll(w, r)
	var tooLarge *http.MaxBytesError
	var late lateError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body must have at most %d bytes", maxBody))
	case errors.As(err, &late):
		return nil, refuse(http.StatusRequestTimeout, late.Error())
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "the body must come as a whole")
	}
	if err := h.checkBody(r.PathValue("vm_id"), body); err != nil {
		return nil, refuse(http.StatusBadRequest, err.Error())
	}
	return body, nil
}

// readAll returns the body of r if it has no more than maxBody bytes.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var body []byte
	var err error = &http.MaxBytesError{Limit: maxBody}
	if r.ContentLength <= maxBody {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	// In HTTP/2 the header would close the connection to other calls as well.
	if err != nil && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	return body, err
}

// isJSON reports whether a Content-Type is JSON, which is always UTF-8.
func isJSON(contentType string) bool {
	name, params, err := mime.ParseMediaType(contentType)
	charset := params["charset"]
	return err == nil && name == contentJSON && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// checkBody returns a *fleet.FieldError when the transcoder would not make a
// request of the body: where it fails, it goes on with an empty one. Where the
// body becomes the request itself, its members are checked as well: the
// transcoder puts the vm_id of the path over another one, and decoders do not
// name fields.
func (h routeHandler) checkBody(vm string, body []byte) error {
	var sent structpb.Struct
	if err := unmarshalBody(withinDoubles(body), &sent); err != nil || h.Body != "*" {
		return err
	}
	o, err := reportOf("body", sent.AsMap())
	if err != nil {
		return err
	}
	o.vm(vm)
	for _, name := range []string{"org_id", "pool_id", "runner_group"} {
		o.text(name)
	}
	o.texts("labels")
	return cmp.Or(*o.err, unmarshalBody(body, &migcontrollerv1.RequestRegistrationTokenRequest{}))
}

func (o object) texts(name string) {
	v := o.member(name)
	list, ok := v.([]any)
	notText := func(v any) bool { _, ok := v.(string); return !ok }
	if v != nil && !ok || slices.ContainsFunc(list, notText) {
		o.breaks(name, "must be a list of texts")
	}
}

// decoding is how bodies are read. A level of JSON is two messages; the exact
// limit is that of reportOf.
var decoding = protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 4 * maxDepth}

// position finds where in the body a decoder stopped.
var position = regexp.MustCompile(`line \d+:\d+`)

// unmarshalBody decodes a body into msg, or returns a *fleet.FieldError.
func unmarshalBody(body []byte, msg proto.Message) error {
	err := decoding.Unmarshal(body, msg)
	if err == nil {
		return nil
	}
	rule := fmt.Sprintf("must be a JSON object, no member named twice, nested at most %d deep", maxDepth)
	if at := position.FindString(err.Error()); at != "" {
		rule += "; it is not at " + at
	}
	return &fleet.FieldError{Field: "body", Rule: rule}
}

// routeCodec is the JSON of the routes: names as in the schema, zero values
// shown, what is optional and not set left out, nothing between the tokens, and
// unknown members accepted. The transcoder's errors get the form of an
// errorBody.
type routeCodec struct{ vanguard.JSONCodec }

func newRouteCodec(vanguard.TypeResolver) vanguard.Codec {
	return routeCodec{vanguard.JSONCodec{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
		UnmarshalOptions: decoding,
	}}
}

// MarshalAppend implements vanguard.Codec.
func (c routeCodec) MarshalAppend(base []byte, msg proto.Message) ([]byte, error) {
	if s, ok := msg.(*status.Status); ok {
		body, err := json.Marshal(errorBody{Code: connect.Code(s.GetCode()).String(), Message: s.GetMessage()})
		return append(base, body...), err
	}
	data, err := c.MarshalAppendStable(nil, msg)
	return append(base, data...), err
}
