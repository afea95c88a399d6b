package rpc

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
)

// tripwire notes the calls of operators' methods that reach the interceptors.
type tripwire struct{ reached []string }

func (w *tripwire) note(s connect.Spec) {
	for _, service := range []string{
		migcontrollerv1connect.AdminServiceName, migcontrollerv1connect.AccessServiceName,
		grpcreflect.ReflectV1ServiceName, grpcreflect.ReflectV1AlphaServiceName,
	} {
		if strings.HasPrefix(s.Procedure, "/"+service+"/") {
			w.reached = append(w.reached, s.Procedure)
		}
	}
}

// WrapUnary implements connect.Interceptor.
func (w *tripwire) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		w.note(req.Spec())
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (w *tripwire) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		w.note(conn.Spec())
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (*tripwire) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// Whatever the method, the path, the headers and the body are, a request without valid
// credentials reaches nothing of operators', and is neither a panic nor a failure of the server.
func FuzzNothingWithoutAdmission(f *testing.F) {
	for _, m := range operatorMethods() {
		f.Add("POST", procedureOf(m), contentJSON, "", "", []byte("{}"))
		f.Add("GET", procedureOf(m)+"?connect=v1&encoding=json&message=%7B%7D", "", "", "", []byte(nil))
		f.Add("POST", procedureOf(m), "application/grpc-web-text", "X-User-Agent", "grpc-web", []byte("AAAAAAA="))
	}
	f.Add("POST", "/migcontroller.v1.AdminService/%53endCommand", "application/grpc", "Te", "trailers", []byte{0, 0, 0, 0, 0})
	f.Add("POST", "/migcontroller.v1.AdminService%2FSendCommand", contentJSON, "X-Http-Method-Override", "GET", []byte("{}"))
	f.Add("POST", "/grpc.health.v1.Health/migcontroller.v1.AdminService/SendCommand", contentJSON, "", "", []byte("{}"))
	f.Add("OPTIONS", "/migcontroller.v1.AccessService/CreateToken/", "", "Origin", "https://evil.example", []byte(nil))
	f.Add("HEAD", "/metrics", "", "Upgrade", "h2c", []byte(nil))
	f.Add("CONNECT", "/openapi.json", "", "", "", []byte(nil))
	f.Add("GET", "/ready?verbose=1&verbose=0", "", "Authorization", "Bearer x", []byte(nil))
	f.Add("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "application/grpc", "", "", []byte{0, 0, 0, 0, 0})
	c := config(&fakeAgents{})
	wire := new(tripwire)
	c.Operators, c.Warnings = holder{}, []string{"only for viewers"}
	c.Options = append(c.Options, connect.WithInterceptors(wire))
	c.MetricsPage = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { wire.reached = append(wire.reached, "/metrics") })
	handler := AllowOrigins(NewHandler(c), []string{"https://ci.example.com"})
	f.Fuzz(func(t *testing.T, method, path, contentType, name, value string, body []byte) {
		target, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		for _, major := range []int{1, 2} {
			r := &http.Request{
				Method: method, URL: target, ProtoMajor: major, Host: "x", RemoteAddr: "192.0.2.1:1",
				Header: http.Header{"Content-Type": {contentType}, http.CanonicalHeaderKey(name): {value}},
				Body:   io.NopCloser(bytes.NewReader(body)), ContentLength: -1,
			}
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, r.WithContext(t.Context()))
			require.Empty(t, wire.reached)
			require.NotEqual(t, http.StatusInternalServerError, recorder.Code)
			require.NotContains(t, recorder.Body.String(), c.Warnings[0])
			require.NotContains(t, recorder.Body.String(), `"openapi"`)
			require.NotContains(t, recorder.Header(), "Access-Control-Allow-Credentials")
			if origin := recorder.Header().Get("Access-Control-Allow-Origin"); origin != "" {
				require.Equal(t, "https://ci.example.com", origin)
			}
		}
	})
}

// Whatever a procedure is, what is not declared requires at least a viewer, or what nobody has.
func FuzzRequirementOf(f *testing.F) {
	for _, m := range operatorMethods() {
		f.Add(procedureOf(m))
	}
	f.Add("/migcontroller.v1.Role/ROLE_ADMIN")
	f.Add("//./\x00")
	f.Add("grpc.health.v1.Health")
	f.Fuzz(func(t *testing.T, procedure string) {
		need := requirementOf(procedure)
		require.False(t, auth.Role("").Includes(need.Role))
		require.LessOrEqual(t, len(need.Action), len(procedure)+1)
	})
}
