package rpc

import (
	"log/slog"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// withSpans returns a Config with spans, which are recorded.
func withSpans(t *testing.T, a *fakeAgents) (Config, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	trace, err := NewTraceInterceptor(
		sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample()))),
		propagation.TraceContext{})
	require.NoError(t, err)
	c := config(a)
	c.Options = []connect.HandlerOption{connect.WithInterceptors(trace, NewErrorInterceptor(slog.New(slog.DiscardHandler), nil))}
	return c, recorder
}

// A unary call has one span with the code that its caller gets, and without attributes of its
// peer. Reports and streams have none.
func TestTraces(t *testing.T) {
	t.Parallel()
	admin := "/" + migcontrollerv1connect.AdminServiceName + "/"
	for name, call := range map[string]struct {
		method, path, body, contentType string
		span                            string
		status                          codes.Code
	}{
		"success":    {"POST", admin + "GetCommand", "{}", "application/json", "migcontroller.v1.AdminService/GetCommand", codes.Unset},
		"error":      {"POST", admin + "ListVMs", "{}", "application/json", "migcontroller.v1.AdminService/ListVMs", codes.Error},
		"poll":       {"GET", "/api/v1/vms/vm-1/commands", "", "", "migcontroller.v1.AgentService/PollCommands", codes.Unset},
		"event":      {"POST", "/api/v1/vms/vm-1/events", `{"type":"x"}`, "application/json", "", 0},
		"heartbeat":  {"POST", "/api/v1/vms/vm-1/heartbeat", `{"type":"job_heartbeat"}`, "application/json", "", 0},
		"WatchFleet": {"POST", admin + "WatchFleet", "\x00\x00\x00\x00\x02{}", "application/connect+json", "", 0},
		"stream":     {"POST", "/miglet.commands.CommandService/StreamCommands", "", "application/grpc", "", 0},
		"reflection": {"POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", "application/grpc", "", 0},
		"health":     {"POST", "/grpc.health.v1.Health/Check", "{}", "application/json", "", 0},
		"page":       {"GET", "/health", "", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, recorder := withSpans(t, &fakeAgents{})
			do(t, client(t, 2), call.method, "http://"+serve(t, NewHandler(c))+call.path, call.body, "Content-Type", call.contentType)
			if call.span == "" {
				require.Empty(t, recorder.Started())
				return
			}
			spans := recorder.Ended()
			require.Len(t, spans, 1)
			require.Equal(t, call.span, spans[0].Name())
			require.Equal(t, call.status, spans[0].Status().Code)
			require.Empty(t, spans[0].Links())
			for _, a := range spans[0].Attributes() {
				require.NotRegexp(t, "peer|client|address|port", string(a.Key))
				require.NotContains(t, a.Value.String(), "127.0.0.1")
			}
		})
	}
}

// The error of the domain is translated before the span gets it.
func TestTraceHasTheCodeOfTheCaller(t *testing.T) {
	t.Parallel()
	c, recorder := withSpans(t, &fakeAgents{err: fleet.ErrUnavailable})
	do(t, client(t, 1), http.MethodGet, "http://"+serve(t, NewHandler(c))+"/api/v1/vms/vm-1/commands", "")
	span := recorder.Ended()[0]
	require.Equal(t, codes.Error, span.Status().Code)
	found := false
	for _, a := range span.Attributes() {
		found = found || a.Value.String() == "unavailable" || a.Value.String() == "UNAVAILABLE"
	}
	require.True(t, found, span.Attributes())
}

// A caller's trace is linked to, and decides nothing: neither the trace id nor the sampling.
func TestTraceOfTheCaller(t *testing.T) {
	t.Parallel()
	c, recorder := withSpans(t, &fakeAgents{})
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	for _, flags := range []string{"00", "01"} {
		do(t, client(t, 1), http.MethodGet, "http://"+serve(t, NewHandler(c))+"/api/v1/vms/vm-1/commands", "",
			"traceparent", "00-"+theirs+"-b7ad6b7169203331-"+flags)
	}
	require.Len(t, recorder.Ended(), 2)
	for _, span := range recorder.Ended() {
		require.Len(t, span.Links(), 1)
		require.Equal(t, theirs, span.Links()[0].SpanContext.TraceID().String())
		require.NotEqual(t, theirs, span.SpanContext().TraceID().String())
		require.False(t, span.Parent().IsValid())
	}
}
