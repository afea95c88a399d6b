package rpc

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/requestid"
)

// Every response has the id of its request, from whatever answers it: a handler, a route, a stream,
// or what refuses requests before them. A valid id of the caller is kept.
func TestRequestID(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Commands = fakeStreams(func(_ context.Context, stream *bidiStream) error {
		_, err := stream.Receive()
		return err
	})
	base := "http://" + serve(t, AllowOrigins(NewHandler(c), []string{"https://a.example"}))
	admin := "/" + migcontrollerv1connect.AdminServiceName + "/"
	for name, call := range map[string]struct {
		method, path, body, contentType string
		status                          int
	}{
		"success":          {"POST", admin + "GetCommand", "{}", "application/json", 200},
		"error":            {"POST", admin + "ListVMs", "{}", "application/json", 501},
		"gRPC":             {"POST", admin + "GetCommand", "\x00\x00\x00\x00\x00", "application/grpc", 200},
		"gRPC error":       {"POST", admin + "ListVMs", "\x00\x00\x00\x00\x00", "application/grpc", 200},
		"no method":        {"POST", admin + "Nothing", "{}", "application/json", 501},
		"no service":       {"POST", "/a.B/C", "{}", "application/json", 404},
		"route":            {"POST", "/api/v1/vms/vm-1/events", `{"type":"x"}`, "application/json", 200},
		"route error":      {"POST", "/api/v1/vms/vm-1/events", `{`, "application/json", 400},
		"stream":           {"POST", "/miglet.commands.CommandService/StreamCommands", "", "application/grpc", 200},
		"server stream":    {"POST", admin + "WatchFleet", "\x00\x00\x00\x00\x02{}", "application/connect+json", 200},
		"page":             {"GET", "/health", "", "", 200},
		"nothing there":    {"GET", "/nowhere", "", "", 404},
		"a path not clean": {"GET", "//", "", "", 400},
	} {
		for version, number := range httpVersions {
			if number == 1 && (name == "stream" || strings.HasPrefix(name, "gRPC")) {
				continue
			}
			t.Run(name+" over "+version, func(t *testing.T) {
				t.Parallel()
				send := func(headers ...string) answer {
					got := do(t, client(t, number), call.method, base+call.path, call.body, append(headers, "Content-Type", call.contentType)...)
					require.Equal(t, call.status, got.status, got.body)
					require.Len(t, got.header.Values("X-Request-Id"), 1)
					return got
				}
				first, second := send().header.Get("X-Request-Id"), send("X-Request-Id", "no spaces").header.Get("X-Request-Id")
				require.Regexp(t, "^req-[a-z2-7]{26}$", first)
				require.Regexp(t, "^req-[a-z2-7]{26}$", second, "an invalid id is not used")
				require.NotEqual(t, first, second)
				require.Equal(t, "mine/7", send("X-Request-Id", "mine/7").header.Get("X-Request-Id"))
			})
		}
	}
	t.Run("web pages can read it", func(t *testing.T) {
		t.Parallel()
		got := do(t, client(t, 1), http.MethodGet, base+"/health", "", "Origin", "https://a.example")
		require.Contains(t, got.header.Get("Access-Control-Expose-Headers"), "X-Request-Id")
	})
}

// The context of a call has the id of its request: log lines get it from there.
func TestRequestIDInContext(t *testing.T) {
	t.Parallel()
	ids := make(chan string, 2)
	c := config(&fakeAgents{})
	c.Options = []connect.HandlerOption{connect.WithInterceptors(connect.UnaryInterceptorFunc(
		func(connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
				ids <- requestid.Of(ctx)
				return nil, errors.New("enough")
			}
		}))}
	base := "http://" + serve(t, NewHandler(c))
	for path, body := range map[string]string{
		"/" + migcontrollerv1connect.AdminServiceName + "/GetCommand": "{}", "/api/v1/vms/vm-1/events": `{"type":"x"}`,
	} {
		do(t, client(t, 1), http.MethodPost, base+path, body, "Content-Type", "application/json", "X-Request-Id", "mine")
		require.Equal(t, "mine", <-ids)
	}
}
