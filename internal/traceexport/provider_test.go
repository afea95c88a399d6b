package traceexport

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The SDK reads the environment of the process, so these tests change it and cannot be
// parallel.

// receiver is an OTLP server.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

// Export implements OTLP over gRPC.
func (r *receiver) Export(
	_ context.Context, m *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.got <- m
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP implements OTLP over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	m := new(collector.ExportTraceServiceRequest)
	if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(body, m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.got <- m
}

// take returns the spans and the attributes of the service in the only message so far.
func (r *receiver) take(t *testing.T) (spans []*otlp.Span, service map[string]string) {
	t.Helper()
	require.Len(t, r.got, 1)
	service = map[string]string{}
	for _, resource := range (<-r.got).GetResourceSpans() {
		for _, a := range resource.GetResource().GetAttributes() {
			service[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range resource.GetScopeSpans() {
			spans = append(spans, scope.GetSpans()...)
		}
	}
	return spans, service
}

func newReceiver() *receiver {
	return &receiver{got: make(chan *collector.ExportTraceServiceRequest, 10)}
}

// serveHTTP serves h and makes it the endpoint.
func serveHTTP(t *testing.T, h http.Handler) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
}

// failures are calls of Options.Failed.
type failures chan struct {
	spans int
	err   error
}

// start starts a Provider as the environment says.
func start(t *testing.T) (p *Provider, console *testkit.Buffer, failed failures) {
	t.Helper()
	console, failed = new(testkit.Buffer), make(failures, 10)
	s := Read(os.Getenv)
	require.True(t, s.On())
	p, err := Start(t.Context(), s, Options{Version: "1.2.3", Console: console, Failed: func(spans int, err error) {
		failed <- struct {
			spans int
			err   error
		}{spans, err}
	}})
	require.NoError(t, err)
	return p, console, failed
}

func span(from trace.TracerProvider, name string) {
	_, s := from.Tracer("test").Start(context.Background(), name)
	s.End()
}

// Spans of both providers are exported with the same service, whose attributes the environment
// can change.
func TestExportOverHTTP(t *testing.T) {
	r := newReceiver()
	serveHTTP(t, r)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	p, _, failed := start(t)
	span(p.Requests(), "a")
	span(p.Linked(), "b")
	require.NoError(t, p.Shutdown(t.Context()))
	spans, service := r.take(t)
	require.Len(t, spans, 2)
	require.Equal(t, "a", spans[0].GetName())
	require.Equal(t, "mig-controller", service["service.name"])
	require.Equal(t, "1.2.3", service["service.version"])
	require.Equal(t, "test", service["deployment.environment.name"])
	require.Empty(t, failed)
	require.NoError(t, p.Shutdown(t.Context()), "a second time")
}

func TestExportOverGRPC(t *testing.T) {
	r := newReceiver()
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"+listener.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_SERVICE_NAME", "mine")
	p, _, failed := start(t)
	span(p.Requests(), "a")
	require.NoError(t, p.Shutdown(t.Context()))
	require.Empty(t, failed)
	spans, service := r.take(t)
	require.Len(t, spans, 1)
	require.Equal(t, "mine", service["service.name"])
}

// The exporter console writes a JSON object per line.
func TestConsole(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	p, console, _ := start(t)
	span(p.Requests(), "a")
	require.NoError(t, p.Shutdown(t.Context()))
	var written map[string]any
	require.NoError(t, json.Unmarshal([]byte(console.String()), &written))
	require.Equal(t, "a", written["Name"])
}

// The environment's sampler applies to requests; what is linked to a sampled span is sampled.
func TestSampler(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	p, console, _ := start(t)
	span(p.Requests(), "request")
	span(p.Linked(), "linked")
	require.NoError(t, p.Shutdown(t.Context()))
	require.NotContains(t, console.String(), "request")
	require.Contains(t, console.String(), "linked")
}

// Spans that are refused are reported, and are not an error of anything else.
func TestRefused(t *testing.T) {
	serveHTTP(t, http.NotFoundHandler())
	p, _, failed := start(t)
	span(p.Requests(), "a")
	span(p.Requests(), "b")
	require.NoError(t, p.Shutdown(t.Context()))
	require.Len(t, failed, 1)
	failure := <-failed
	require.Equal(t, 2, failure.spans)
	require.ErrorContains(t, failure.err, "404")
}

// An exporter that does not answer neither blocks those who make spans nor delays the end for
// longer than permitted.
func TestSlowExporter(t *testing.T) {
	began := make(chan struct{}, 100)
	serveHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	p, _, failed := start(t)
	for range 10_000 { // the queue has 2048
		span(p.Requests(), "a")
	}
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Shutdown(ctx), errNotFlushed)
	require.Error(t, (<-failed).err)
}
