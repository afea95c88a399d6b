package rpc

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"connectrpc.com/authn"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/auth"
)

// Admitter decides who a caller is, and whether it may make a call, by header and connection
// alone. Errors are those of auth.Authenticator.
type Admitter interface {
	Admit(r *http.Request, need auth.Requirement) (auth.Principal, error)
	// Required reports whether callers need credentials.
	Required() bool
}

// operators admits callers to the services and pages for operators, before a body is read.
type operators struct {
	admitter Admitter
	requests *Requests
}

// service returns a handler that passes the admitted calls of a service on to next. The schema
// has what each of its methods requires; others, of third-party services, require a viewer.
func (o operators) service(next http.Handler) http.Handler {
	gate := authn.NewMiddleware(func(_ context.Context, r *http.Request) (any, error) {
		procedure, _ := authn.InferProcedure(r.URL)
		p, err := o.admitter.Admit(r, requirementOf(procedure))
		if err != nil {
			answer := toConnect(err)
			setChallenge(answer.Meta(), answer.Code())
			o.requests.refused(procedure, answer.Code())
			return nil, answer
		}
		return p, nil
	})
	return gate.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := authn.GetInfo(r.Context()).(auth.Principal)
		next.ServeHTTP(w, r.WithContext(auth.With(r.Context(), p)))
	}))
}

// page returns a handler that passes the admitted requests for a page on to next.
func (o operators) page(need auth.Requirement, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := o.admitter.Admit(r, need); err != nil {
			answer := toConnect(err)
			setChallenge(w.Header(), answer.Code())
			writeJSON(w, statusOf(answer.Code()), errorBody{Code: answer.Code().String(), Message: answer.Message()})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// setChallenge names the way to authenticate, which RFC 9110 requires with a 401.
func setChallenge(h http.Header, code connect.Code) {
	if code == connect.CodeUnauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="mig-controller"`)
	}
}

// statusOf returns the status of the codes with which a page is refused.
func statusOf(code connect.Code) int {
	switch code {
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusTooManyRequests
	}
}

// requirementOf returns what a procedure such as /migcontroller.v1.AdminService/GetVM
// requires. A method of the schema without an option requires what nobody has.
func requirementOf(procedure string) auth.Requirement {
	service, method, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	_, short, _ := cutLast(service, ".")
	need := auth.Requirement{Action: short + "/" + method}
	found, _ := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	described, ok := found.(protoreflect.ServiceDescriptor)
	if _, foreign := foreignMethods[service]; foreign || !ok {
		need.Role = auth.Viewer
		return need
	}
	m := described.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		return need
	}
	option, _ := proto.GetExtension(m.Options(), migcontrollerv1.E_Requires).(*migcontrollerv1.Requirement)
	need.Role, need.AllPools = roleFromProto(option.GetRole()), option.GetAllPools()
	return need
}

// cutLast slices s around the last instance of sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// endedBy returns auth.ErrEnded if that is why ctx has ended, and otherwise err.
func endedBy(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), auth.ErrEnded) {
		return auth.ErrEnded
	}
	return err
}
