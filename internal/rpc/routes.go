package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxBody is the maximum size of a request body.
const maxBody = 64 << 10

// Route is one of the HTTP routes for agents without a stream: a method of
// AgentService under another name.
type Route struct {
	Method, Pattern string
	// RPC is the AgentService method.
	RPC string
	// Body is the request field that the body is decoded into; * is the request itself, and
	// empty means that there is no body.
	Body string
}

// AgentRoutes returns the routes in the agents' contract.
func AgentRoutes() []Route { return slices.Clone(agentRoutes) }

var agentRoutes = []Route{
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/events", RPC: "ReportEvent", Body: "event"},
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/heartbeat", RPC: "ReportHeartbeat", Body: "heartbeat"},
	{Method: http.MethodGet, Pattern: "/api/v1/vms/{vm_id}/commands", RPC: "PollCommands"},
	{Method: http.MethodPost, Pattern: "/api/v1/vms/{vm_id}/registration-token", RPC: "RequestRegistrationToken", Body: "*"},
}

// mountRoutes adds the routes to mux. Every response is JSON, and every status other than 200
// has an errorBody.
func mountRoutes(
	mux *http.ServeMux, svc migcontrollerv1connect.AgentServiceHandler, requests *Requests, opts ...connect.HandlerOption,
) {
	_, calls := migcontrollerv1connect.NewAgentServiceHandler(svc,
		connect.WithInterceptors(connect.UnaryInterceptorFunc(plainErrors)),
		connect.WithHandlerOptions(opts...),
		connect.WithCodec(routeCodec{}),
		connect.WithCompression("gzip", nil, nil))
	for _, r := range agentRoutes {
		mux.Handle(r.Pattern, routeHandler{Route: r, next: calls, requests: requests})
	}
}

// plainErrors reduces errors to what an errorBody has.
func plainErrors(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if e, ok := errors.AsType[*connect.Error](err); ok {
			plain := connect.NewError(e.Code(), errors.New(e.Message()))
			maps.Copy(plain.Meta(), e.Meta())
			err = plain
		}
		return resp, err
	}
}

// routeHandler translates requests of its route to AgentService calls in Connect's JSON, if
// they name a VM and are small and well-formed. It passes on only the VM, the body, and the
// headers that do not describe the form of the message.
type routeHandler struct {
	Route
	next     http.Handler
	requests *Requests
}

// ServeHTTP answers one request.
func (h routeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != h.Method {
		writeNotAllowed(w, h.Method)
		h.requests.refused(h.procedure(), connect.CodeUnimplemented)
		return
	}
	vm, err := fleet.ParseVMID(r.PathValue("vm_id"))
	if err != nil {
		h.refuse(w, refuse(http.StatusBadRequest, err.Error()))
		return
	}
	var body []byte
	if h.Body != "" {
		var no *refusal
		if body, no = readBody(w, r); no != nil {
			h.refuse(w, no)
			return
		}
	}
	message, err := h.message(vm, body)
	if err != nil {
		h.refuse(w, refuse(http.StatusBadRequest, err.Error()))
		return
	}
	setAnswerHeaders(w.Header())
	h.next.ServeHTTP(routeResponse{w}, h.call(r, body, message))
}

func (h routeHandler) refuse(w http.ResponseWriter, no *refusal) {
	writeRefusal(w, no)
	h.requests.refused(h.procedure(), refusalCodes[no.status])
}

func (h routeHandler) procedure() string {
	return "/" + migcontrollerv1connect.AgentServiceName + "/" + h.RPC
}

// routeResponse removes the header with which Connect announces the accepted compression.
type routeResponse struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w routeResponse) WriteHeader(status int) {
	w.Header().Del("Accept-Encoding")
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w routeResponse) Write(b []byte) (int, error) {
	w.Header().Del("Accept-Encoding")
	return w.ResponseWriter.Write(b)
}

// message returns the request of the method as JSON, or a *fleet.FieldError when the body is
// not valid for it. Only a body that is the request itself is checked further.
func (h routeHandler) message(vm fleet.VMID, body []byte) ([]byte, error) {
	if h.Body == "" {
		return fmt.Appendf(nil, `{"vm_id":%q}`, vm), nil
	}
	inDoubles := withinDoubles(body)
	var sent structpb.Struct
	if err := unmarshalBody(inDoubles, &sent); err != nil {
		return nil, err
	}
	if h.Body == "*" {
		return tokenRequest(vm, body, &sent)
	}
	return fmt.Appendf(nil, `{"vm_id":%q,%q:%s}`, vm, h.Body, inDoubles), nil
}

// tokenRequest returns the request for a registration token. Its members are checked first,
// because the errors of decoders do not name fields.
func tokenRequest(vm fleet.VMID, body []byte, sent *structpb.Struct) ([]byte, error) {
	o, err := reportOf("body", sent.AsMap())
	if err != nil {
		return nil, err
	}
	o.vm(string(vm))
	for _, name := range []string{"org_id", "pool_id", "runner_group"} {
		o.text(name)
	}
	o.texts("labels")
	var req migcontrollerv1.RequestRegistrationTokenRequest
	if err := cmp.Or(*o.err, unmarshalBody(body, &req)); err != nil {
		return nil, err
	}
	req.VmId = string(vm)
	return protojson.Marshal(&req)
}

// call returns the request for Connect's handler. It has no query: the routes have none.
func (h routeHandler) call(r *http.Request, body, message []byte) *http.Request {
	call := r.Clone(withSentBody(r.Context(), body))
	for name := range call.Header {
		if strings.HasPrefix(name, "Connect-") || strings.HasPrefix(name, "Content-") {
			delete(call.Header, name)
		}
	}
	call.Method = http.MethodPost
	call.URL = &url.URL{Path: h.procedure()}
	call.Header.Set("Content-Type", contentJSON)
	call.Body, call.ContentLength, call.TransferEncoding = io.NopCloser(bytes.NewReader(message)), int64(len(message)), nil
	return call
}

// readBody returns the complete body, whose Content-Type must be JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
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
		return nil, refuse(http.StatusBadRequest, "the body must arrive completely")
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
	// With HTTP/2 this header would close the connection for other calls too.
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

func (o object) texts(name string) {
	v := o.member(name)
	list, ok := v.([]any)
	notText := func(v any) bool { _, ok := v.(string); return !ok }
	if v != nil && !ok || slices.ContainsFunc(list, notText) {
		o.breaks(name, "must be a list of texts")
	}
}

// decoding has the options for bodies. A level of JSON is two messages; reportOf applies the
// exact limit.
var decoding = protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 4 * maxDepth}

// position matches the position in the body at which a decoder stopped.
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

// routeCodec is the JSON of the routes: compact, with the names of the schema and with zero
// values, but without optional fields that are not set; it ignores unknown members.
type routeCodec struct{}

// Name implements connect.Codec.
func (routeCodec) Name() string { return "json" }

// Marshal implements connect.Codec.
func (routeCodec) Marshal(m any) ([]byte, error) {
	shown, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m.(proto.Message)) //nolint:errcheck,forcetypeassert // of generated handlers
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer // the library varies the space between tokens on purpose
	err = json.Compact(&compact, shown)
	return compact.Bytes(), err
}

// Unmarshal implements connect.Codec. The message has been checked already.
func (routeCodec) Unmarshal(b []byte, m any) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m.(proto.Message)) //nolint:errcheck,forcetypeassert // as above
}
