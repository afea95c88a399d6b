// Package rpc owns everything between the wire and the domain: the handlers of the services and
// of the HTTP routes that older agents use, the admission of operators, the interceptors, the
// translation between Protobuf and the domain, and the one table that maps errors to codes.
// Generated types are used only here.
//
// Two middlewares are here and not in package httpserver: WithTimeouts, because agents'
// streams suspend its limits and its errors have codes, and AllowOrigins, because it allows
// the headers of the RPC protocols.
package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// Maximum sizes of messages.
const (
	maxAgentMessage = 64 << 10
	maxAdminMessage = 1 << 20
	// maxStreamMessage is the size above which a message ends its stream. A message between
	// maxAgentMessage and this size is refused or truncated, and the stream continues.
	maxStreamMessage = 1 << 20
)

const contentJSON = "application/json"

// serviceNames are the services of the handler, as health checks and
// reflection name them.
var serviceNames = []string{
	migcontrollerv1connect.AdminServiceName,
	migcontrollerv1connect.AccessServiceName,
	migcontrollerv1connect.AgentServiceName,
	commandsconnect.CommandServiceName,
	grpchealth.HealthV1ServiceName,
}

// Config configures the handler. All fields are required except Warnings, Requests, MetricsPage,
// Stopping, Options and Extra.
type Config struct {
	// Agents serves agents without a stream.
	Agents agents
	// Commands serves the agents' streams.
	Commands StreamService
	// Admin and Access serve operators, whom Operators admits.
	Admin     migcontrollerv1connect.AdminServiceHandler
	Access    migcontrollerv1connect.AccessServiceHandler
	Operators Admitter
	// Ready decides whether the controller is ready.
	Ready *readiness.Checks
	// Warnings are about options that are in effect, for the verbose answer of /ready.
	Warnings []string
	// Requests counts the requests of the agents' routes that reach no service; nil counts
	// none. The others are counted by the interceptor of NewErrorInterceptor.
	Requests *Requests
	// MetricsPage serves /metrics; nil means that it is not served.
	MetricsPage http.Handler
	// Stopping is closed when the controller begins to stop, which ends health watches; nil
	// means never.
	Stopping <-chan struct{}
	// Options apply to all services except health. Their outermost interceptor is that of
	// NewErrorInterceptor, or that of NewTraceInterceptor around it.
	Options []connect.HandlerOption
	// Extra returns one additional service, which is wrapped like the others; nil for none.
	// Protocol tests use it for a service whose responses the client chooses.
	Extra Extra
}

// Extra returns the path and the handler of a service, like a generated constructor. It must
// use the options.
type Extra func(options ...connect.HandlerOption) (prefix string, service http.Handler)

// NewHandler returns the handler for all listeners, over HTTP/1.1 and HTTP/2. It is safe for
// concurrent use.
func NewHandler(c Config) http.Handler {
	mux := http.NewServeMux()
	mount := func(prefix string, h http.Handler) {
		mux.Handle(prefix, methodsOnly(prefix, explained(h)))
		// Otherwise the mux answers with a redirect.
		mux.HandleFunc(strings.TrimSuffix(prefix, "/"), writeNotServed)
	}
	of := operators{c.Operators, c.Requests}
	mountOf := func(prefix string, h http.Handler) { mount(prefix, of.service(h)) }
	agent := agentService{c.Agents}
	options := connect.WithHandlerOptions(c.Options...)
	small, large := withReadLimit(maxAgentMessage), withReadLimit(maxAdminMessage)

	prefix, commands := newStreamHandler(c.Commands, options, withReadLimit(maxStreamMessage))
	mount(prefix, withStreamControl(commands))
	mount(migcontrollerv1connect.NewAgentServiceHandler(agent, options, small))
	mountOf(migcontrollerv1connect.NewAdminServiceHandler(c.Admin, options, large, withStrictJSON()))
	mountOf(migcontrollerv1connect.NewAccessServiceHandler(c.Access, options, small, withStrictJSON()))
	reflector := grpcreflect.NewStaticReflector(serviceNames...)
	mountOf(grpcreflect.NewHandlerV1(reflector, options, small))
	mountOf(grpcreflect.NewHandlerV1Alpha(reflector, options, small))
	mount(newHealthHandler(&healthWatch{
		ready: readyBy(c.Ready), interval: healthInterval, draining: c.Ready.Draining(), stopping: c.Stopping,
	}, small))
	mountRoutes(mux, agent, c.Requests, options)
	if c.Extra != nil {
		// It gets the middlewares of every service but the admission of operators, so that all of
		// them can be tested.
		prefix, extra := c.Extra(options, connect.WithCodec(agentCodec{}), withStrictJSON())
		mount(prefix, withStreamControl(extra))
	}

	mux.Handle("/health", getOnly(writeHealth))
	mux.Handle("/ready", getOnly(of.ready(c.Ready, c.Warnings)))
	if c.MetricsPage != nil {
		// It counts the VMs and commands of all pools.
		metrics := of.page(auth.Requirement{Action: "/metrics", Role: auth.Viewer, AllPools: true}, c.MetricsPage)
		mux.Handle("/metrics", getOnly(metrics.ServeHTTP))
	}
	openAPI := of.page(auth.Requirement{Action: "/openapi.json", Role: auth.Viewer}, serveOpenAPI())
	mux.Handle("/openapi.json", getOnly(openAPI.ServeHTTP))
	mux.Handle("/{$}", getOnly(writeIndex))
	mux.HandleFunc("/", writeNotServed)
	return canonical(mux)
}

// NewMetricsHandler returns the handler for a listener that serves only /metrics.
func NewMetricsHandler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", getOnly(metrics.ServeHTTP))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeRefusal(w, refuse(http.StatusNotFound, "there is nothing at this path; this address serves /metrics"))
	})
	return canonical(mux)
}

// methodsOnly passes calls of existing methods of the service at prefix to next. Generated
// handlers answer other calls with a plain-text 404, which clients do not understand. If the
// methods of the service are not known, all calls are passed.
func methodsOnly(prefix string, next http.Handler) http.Handler {
	name := strings.Trim(prefix, "/")
	methods := methodsOf(name)
	if methods == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, strings.TrimPrefix(r.URL.Path, prefix)) {
			next.ServeHTTP(w, r)
			return
		}
		writeNoMethod(w, r, name)
	})
}

func writeNoMethod(w http.ResponseWriter, r *http.Request, service string) {
	writeUnimplemented(w, r, fmt.Sprintf("%s has no method %q", service, strings.TrimPrefix(r.URL.Path, "/"+service+"/")))
}

// foreignMethods are the methods of third-party services.
var foreignMethods = map[string][]string{
	grpchealth.HealthV1ServiceName:        {"Check", "Watch"},
	grpcreflect.ReflectV1ServiceName:      {"ServerReflectionInfo"},
	grpcreflect.ReflectV1AlphaServiceName: {"ServerReflectionInfo"},
}

// methodsOf returns the methods of a service; nil if they are not known.
func methodsOf(service string) []string {
	if methods := foreignMethods[service]; methods != nil {
		return methods
	}
	found, _ := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	described, ours := found.(protoreflect.ServiceDescriptor)
	if !ours {
		return nil
	}
	var methods []string
	for i := range described.Methods().Len() {
		methods = append(methods, string(described.Methods().Get(i).Name()))
	}
	return methods
}

// canonical refuses paths that are not in canonical form. The mux would answer them with a
// redirect, which agents and RPC clients do not follow.
func canonical(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isCanonical(r.URL) {
			writeRefusal(w, refuse(http.StatusBadRequest, "the path must begin with / and have no empty, . or .. segments"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isCanonical(u *url.URL) bool {
	escaped := u.EscapedPath()
	short := path.Clean(escaped)
	return (escaped == short || escaped == short+"/") && escaped != "//" && strings.HasPrefix(escaped, "/")
}

// getOnly restricts a handler to GET and HEAD.
func getOnly(show http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			writeNotAllowed(w, "GET, HEAD")
			return
		}
		show(w, r)
	})
}

const index = `This is the MIG Controller. It commands fleets of short-lived CI machines.

  /health                                        whether the process is alive
  /ready                                         whether it is ready to work; ?verbose lists the checks
  /metrics                                       metrics for Prometheus, unless --metrics-addr is set
  /openapi.json                                  the services for operators and the agents' routes, for tools
  /api/v1/vms/{vm_id}/events                     agents report events (POST)
  /api/v1/vms/{vm_id}/heartbeat                  agents report heartbeats (POST)
  /api/v1/vms/{vm_id}/commands                   agents ask for commands (GET)
  /api/v1/vms/{vm_id}/registration-token         agents ask for a token (POST)
  /miglet.commands.CommandService/{method}       the agents' stream
  /migcontroller.v1.AgentService/{method}        the same as the routes above
  /migcontroller.v1.AdminService/{method}        operators and their tools
  /migcontroller.v1.AccessService/{method}       who may use the controller, and who changed what

The services speak Connect, gRPC and gRPC-Web, with Protobuf or JSON, and
support reflection. Operators use migctl, or send JSON by POST to AdminService, with
"Authorization: Bearer TOKEN" unless they need no credentials.
`

func writeIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, index)
}

// refusal is the reason why a request is refused, with its status.
type refusal struct {
	status  int
	message string
}

func refuse(status int, message string) *refusal { return &refusal{status, message} }

// refusalCodes are the codes for the statuses of refusals.
var refusalCodes = map[int]connect.Code{
	http.StatusBadRequest:            connect.CodeInvalidArgument,
	http.StatusNotFound:              connect.CodeNotFound,
	http.StatusMethodNotAllowed:      connect.CodeUnimplemented,
	http.StatusRequestTimeout:        connect.CodeDeadlineExceeded,
	http.StatusRequestEntityTooLarge: connect.CodeResourceExhausted,
	http.StatusUnsupportedMediaType:  connect.CodeInvalidArgument,
}

// errorBody is the JSON of an error in Connect's form.
type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func writeRefusal(w http.ResponseWriter, r *refusal) {
	writeJSON(w, r.status, errorBody{Code: refusalCodes[r.status].String(), Message: r.message})
}

// WriteForbidden answers a request with 403 and the message.
func WriteForbidden(w http.ResponseWriter, message string) {
	writeJSON(w, http.StatusForbidden, errorBody{Code: connect.CodePermissionDenied.String(), Message: message})
}

func writeNotFound(w http.ResponseWriter, _ *http.Request) {
	writeRefusal(w, refuse(http.StatusNotFound, "there is nothing at this path; / lists what is served"))
}

func writeNotAllowed(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	writeRefusal(w, refuse(http.StatusMethodNotAllowed, "the method must be "+strings.ReplaceAll(allowed, ", ", " or ")))
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	setAnswerHeaders(w.Header())
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		return // the caller may have disconnected
	}
}

// setAnswerHeaders disables content sniffing and caching of responses: some contain a token.
func setAnswerHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}
