package rpc

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// Probes get the documented responses, over both HTTP versions.
func TestProbes(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	unready := config(&fakeAgents{})
	unready.Ready = checksOf(func(context.Context) error { return errors.New("the store cannot be written") })
	down := "http://" + serve(t, NewHandler(unready))

	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for _, test := range []struct {
				method, url string
				status      int
				body        string
			}{
				{"GET", base + "/health", 200, `{"status":"ok"}`},
				{"GET", down + "/health", 200, `{"status":"ok"}`},
				{"GET", base + "/ready", 200, `{"status":"ready"}`},
				{"GET", down + "/ready", 503, `{"status":"not ready","reason":"the store cannot be written"}`},
				{"POST", base + "/health", 405, `{"code":"unimplemented","message":"the method must be GET or HEAD"}`},
				{"POST", base + "/ready", 405, `{"code":"unimplemented","message":"the method must be GET or HEAD"}`},
				{"HEAD", base + "/ready", 200, ""},
				{"HEAD", down + "/ready", 503, ""},
			} {
				got := do(t, c, test.method, test.url, "")
				require.Equal(t, test.status, got.status, test.url)
				require.Equal(t, test.body, strings.TrimSuffix(got.body, "\n"), test.url)
				require.Equal(t, "application/json", got.header.Get("Content-Type"))
				require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
			}
		})
	}
}

// A blocked store does not block a probe.
func TestReadyEndsItsWait(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Ready = checksOf(func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if !ok || time.Until(deadline) > readiness.Timeout {
			return nil
		}
		return context.DeadlineExceeded
	})
	got := do(t, client(t, 1), "GET", "http://"+serve(t, NewHandler(c))+"/ready", "")
	require.Equal(t, 503, got.status)
}

// gRPC health checks follow readiness, for the process and for each service by
// name.
func TestGRPCHealth(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ready error
	c := config(&fakeAgents{})
	c.Ready = checksOf(func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return ready
	})
	health := grpchealth.NewClient(client(t, 2), "http://"+serve(t, NewHandler(c)), connect.WithGRPC())
	services := append([]string{""}, serviceNames...)
	for _, service := range services {
		got, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: service})
		require.NoError(t, err)
		require.Equal(t, grpchealth.StatusServing, got.Status, service)
	}

	mu.Lock()
	ready = errors.New("the store cannot be written")
	mu.Unlock()
	for _, service := range services {
		got, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: service})
		require.NoError(t, err)
		require.Equal(t, grpchealth.StatusNotServing, got.Status, service)
	}

	_, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: "example.v1.Unknown"})
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
}

// Reflection lists all services and returns the schema of each, in both versions of the
// protocol.
func TestReflection(t *testing.T) {
	t.Parallel()
	handler := NewHandler(config(&fakeAgents{}))
	alphaOnly := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/grpc.reflection.v1.") {
			http.NotFound(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
	for name, h := range map[string]http.Handler{"v1": handler, "v1alpha": alphaOnly} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := grpcreflect.NewClient(client(t, 2), "http://"+serve(t, h), connect.WithGRPC()).NewStream(t.Context())
			defer func() { _, _ = stream.Close() }()
			listed, err := stream.ListServices()
			require.NoError(t, err)
			var names []string
			for _, service := range listed {
				names = append(names, string(service))
				files, err := stream.FileContainingSymbol(service)
				require.NoError(t, err)
				require.NotEmpty(t, files, service)
			}
			require.ElementsMatch(t, []string{
				"migcontroller.v1.AdminService", "migcontroller.v1.AccessService", "migcontroller.v1.AgentService",
				"miglet.commands.CommandService", "grpc.health.v1.Health",
			}, names)
		})
	}
}

// The index describes the controller to anyone who opens its address in a browser.
func TestIndex(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	got := do(t, client(t, 1), "GET", base+"/", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	for _, r := range agentRoutes {
		require.Contains(t, got.body, r.Pattern)
	}
	require.Contains(t, got.body, "/openapi.json")
	for _, service := range []string{
		commandsconnect.CommandServiceName, migcontrollerv1connect.AdminServiceName, migcontrollerv1connect.AgentServiceName,
	} {
		require.Contains(t, got.body, "/"+service+"/")
	}
}

// An unknown path returns a JSON error, never HTML or a redirect.
func TestUnknownPath(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for path, status := range map[string]int{
				"/nowhere":                       404,
				"/health/":                       404,
				"/api":                           404,
				"/api/":                          404,
				"/api/v1/vms/vm-1":               404,
				"/api/v1/vms/vm-1/events/":       404,
				"/api/v1/vms/vm-1/Events":        404,
				"/migcontroller.v1.AgentService": 404,
				"/grpc.health.v1.Health":         404,
				"//":                             400,
				"/a//b":                          400,
				"/api/../health":                 400,
				"/api/v1/vms//commands":          400,
				"/api/v1/vms/../commands":        400,
				"/api/v1/vms/./commands":         400,
				"/..":                            400,
			} {
				got := do(t, c, "GET", base+path, "")
				require.Equal(t, status, got.status, path)
				requireError(t, got)
			}
		})
	}
}

// The error for a method that the controller does not have names the method, in every
// protocol: it shows that the controller is older than its client.
func TestUnknownMethod(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	for _, service := range []string{
		migcontrollerv1connect.AdminServiceName, migcontrollerv1connect.AgentServiceName, commandsconnect.CommandServiceName,
		grpchealth.HealthV1ServiceName, grpcreflect.ReflectV1ServiceName, grpcreflect.ReflectV1AlphaServiceName,
	} {
		url := base + "/" + service + "/ListPools"
		message := service + ` has no method "ListPools"`
		for name, option := range map[string]connect.ClientOption{
			"gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "Connect": connect.WithClientOptions(), "JSON": connect.WithProtoJSON(),
		} {
			c := connect.NewClient[emptypb.Empty, emptypb.Empty](client(t, 2), url, option)
			_, err := c.CallUnary(t.Context(), connect.NewRequest(new(emptypb.Empty)))
			requireUnimplemented(t, err, message, name)
			stream, err := c.CallServerStream(t.Context(), connect.NewRequest(new(emptypb.Empty)))
			require.NoError(t, err, name)
			require.False(t, stream.Receive(), name)
			requireUnimplemented(t, stream.Err(), message, name)
			require.NoError(t, stream.Close(), name)
		}
		for _, version := range httpVersions {
			for _, got := range []answer{
				do(t, client(t, version), "GET", url, ""),
				do(t, client(t, version), "POST", url, "{}"),
				post(t, client(t, version), url, "{}"),
			} {
				require.Equal(t, 501, got.status)
				requireError(t, got)
				require.Contains(t, got.body, "ListPools")
			}
		}
	}
}

func requireUnimplemented(t *testing.T, err error, message, name string) {
	t.Helper()
	var got *connect.Error
	require.ErrorAs(t, err, &got, name)
	require.Equal(t, connect.CodeUnimplemented, got.Code(), name)
	require.Equal(t, message, got.Message(), name)
	require.True(t, connect.IsWireError(err), name)
}

// A message that is too large fails only its own call, for every service.
func TestMessageLimits(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	received := make(chan error, 1)
	c.Commands = fakeStreams(func(_ context.Context, stream *bidiStream) error {
		_, err := stream.Receive()
		received <- err
		return err
	})
	base := "http://" + serve(t, NewHandler(c))
	for name, option := range map[string]connect.ClientOption{"gRPC": connect.WithGRPC(), "Connect": connect.WithClientOptions()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := migcontrollerv1connect.NewAgentServiceClient(client(t, 2), base, option)
			admin := migcontrollerv1connect.NewAdminServiceClient(client(t, 2), base, option)
			event := func(size int) *migcontrollerv1.ReportEventRequest {
				return &migcontrollerv1.ReportEventRequest{VmId: "vm-1", Event: &structpb.Struct{Fields: map[string]*structpb.Value{
					"type": structpb.NewStringValue("error"), "text": structpb.NewStringValue(strings.Repeat("x", size)),
				}}}
			}
			_, err := agent.ReportEvent(t.Context(), event(63<<10))
			require.NoError(t, err)
			_, err = agent.ReportEvent(t.Context(), event(64<<10))
			require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))

			_, err = admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: strings.Repeat("x", 1023<<10)})
			require.NoError(t, err)
			_, err = admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: strings.Repeat("x", 1<<20)})
			require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
		})
	}
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		stream, err := commandsconnect.NewCommandServiceClient(client(t, 2), base, connect.WithGRPC()).StreamCommands(t.Context())
		require.NoError(t, err)
		_ = stream.Send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Error{
			Error: &commands.ErrorNotification{Message: strings.Repeat("x", 1<<20)},
		}})
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(<-received))
		_, err = stream.Receive()
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
		require.NoError(t, stream.CloseResponse())
	})
}

// The controller can end a stream whose agent neither sends nor reads, so that a superseded
// session ends in time. Other streams of the connection continue.
func TestStreamControl(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	c := config(&fakeAgents{})
	c.Commands = fakeStreams(func(ctx context.Context, stream *bidiStream) error {
		exchangeOf(ctx).suspend() // as the service does
		first, err := stream.Receive()
		if err != nil {
			return err
		}
		if first.message.GetConnect().GetVmId() == "reads" {
			require.NoError(t, streamControl(ctx).SetReadDeadline(time.Unix(1, 0)))
			_, err := stream.Receive()
			ended <- err
			return err
		}
		require.NoError(t, streamControl(ctx).SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		large := &commands.ControllerMessage{Message: &commands.ControllerMessage_Error{
			Error: &commands.ErrorNotification{Message: strings.Repeat("x", 1<<20)},
		}}
		for err == nil {
			err = stream.Send(large)
		}
		ended <- err
		return err
	})
	base := "http://" + serve(t, NewHandler(c))
	http2 := client(t, 2)
	for _, vm := range []string{"reads", "sends"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		stream, err := commandsconnect.NewCommandServiceClient(http2, base, connect.WithGRPC()).StreamCommands(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
			Connect: &commands.ConnectRequest{VmId: vm},
		}}))
		select {
		case err := <-ended:
			require.Error(t, err, vm)
		case <-ctx.Done():
			require.Fail(t, "the stream did not end", vm)
		}
		cancel()
		_ = stream.CloseResponse()
	}
	require.Equal(t, 200, do(t, http2, "GET", base+"/health", "").status)
}

// A call outside of withStreamControl has no callControl.
func TestNoStreamControl(t *testing.T) {
	t.Parallel()
	require.Nil(t, streamControl(t.Context()))
}

// The options apply to every service except health: probes have no credentials.
func TestOptions(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	refused := connect.NewError(connect.CodePermissionDenied, errors.New("not for you"))
	c.Options = append(c.Options, connect.WithInterceptors(connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, refused }
	})))
	base := "http://" + serve(t, NewHandler(c))
	http2 := client(t, 2)
	_, err := migcontrollerv1connect.NewAdminServiceClient(http2, base).GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{})
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	_, err = migcontrollerv1connect.NewAgentServiceClient(http2, base).PollCommands(t.Context(), &migcontrollerv1.PollCommandsRequest{VmId: "vm-1"})
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	got := do(t, http2, "GET", base+"/api/v1/vms/vm-1/commands", "")
	require.Equal(t, 403, got.status)
	require.JSONEq(t, `{"code":"permission_denied","message":"not for you"}`, got.body)
	_, err = grpchealth.NewClient(http2, base, connect.WithGRPC()).Check(t.Context(), &grpchealth.CheckRequest{})
	require.NoError(t, err)
}

// An extra service has what the others have: the options, strict JSON, a callControl, and JSON
// errors for unknown paths.
func TestExtra(t *testing.T) {
	t.Parallel()
	held := make(chan bool, 1)
	c := config(&fakeAgents{})
	c.Extra = func(options ...connect.HandlerOption) (string, http.Handler) {
		return "/test.Extra/", connect.NewUnaryHandler("/test.Extra/Fail",
			func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
				held <- streamControl(ctx) != nil
				return nil, errors.New("what nobody may see")
			}, options...)
	}
	base := "http://" + serve(t, NewHandler(c))
	caller := client(t, 1)

	got := post(t, caller, base+"/test.Extra/Fail", `{}`)
	require.JSONEq(t, `{"code":"internal","message":"internal error"}`, got.body)
	require.True(t, <-held)
	got = post(t, caller, base+"/test.Extra/Fail", `{"misspelt":1}`)
	require.Equal(t, http.StatusBadRequest, got.status)
	got = post(t, caller, base+"/test.Extra", `{}`)
	require.Equal(t, http.StatusNotFound, got.status)
}
