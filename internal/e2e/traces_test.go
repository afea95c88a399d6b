package e2e

import (
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/config"
)

// The tests of traces change the environment of the process, so they cannot be parallel.

// traceCollector is a server that receives traces by OTLP over HTTP.
type traceCollector struct {
	mu    sync.Mutex
	spans []*otlp.Span
}

// collectTraces makes the controllers that are started from now on export to a collector.
func collectTraces(t *testing.T) *traceCollector {
	t.Helper()
	c := &traceCollector{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	return c
}

// ServeHTTP receives spans.
func (c *traceCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	m := new(collector.ExportTraceServiceRequest)
	if err != nil || proto.Unmarshal(body, m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range m.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

// named returns the spans whose names contain a text.
func (c *traceCollector) named(name string) (found []*otlp.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if strings.Contains(s.GetName(), name) {
			found = append(found, s)
		}
	}
	return found
}

// of returns the only span of a command with this name.
func (c *traceCollector) of(t *testing.T, name, command string) *otlp.Span {
	t.Helper()
	var found []*otlp.Span
	for _, s := range c.named(name) {
		for _, a := range s.GetAttributes() {
			if a.GetKey() == "command_id" && a.GetValue().GetStringValue() == command {
				found = append(found, s)
			}
		}
	}
	require.Len(t, found, 1, name)
	return found[0]
}

func spanLinks(s *otlp.Span) (ids []string) {
	for _, l := range s.GetLinks() {
		ids = append(ids, hex.EncodeToString(l.GetSpanId()))
	}
	return ids
}

// With the standard environment, the spans of a command's life are exported, and linked across a
// restart of the controller. The log and the record lead to them. Streams have no spans.
func TestTracesOfACommand(t *testing.T) { //nolint:paralleltest // as above
	traces := collectTraces(t)
	c := start(t)
	awaitLine(t, c, "traces ", "otlp, http/protobuf, to http://127.0.0.1:")
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("X-Request-Id", "mine-1")
	sent, err := c.admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{VmId: "vm-1", Command: &commands.Command{Id: "c1", Type: "drain"}})
	require.NoError(t, err)
	require.Equal(t, "mine-1", info.ResponseHeader().Get("X-Request-Id"))
	trace := sent.GetCommand().GetTraceId()
	require.Regexp(t, "^[0-9a-f]{32}$", trace)
	awaitLine(t, c, "command accepted", "command_id=c1", "request_id=mine-1", "trace_id="+trace)

	c = c.restart(t)
	watch, err := c.admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	a := c.connect(t, "vm-1")
	a.expectCommand("drain")
	require.NoError(t, a.ack(&commands.CommandAck{CommandId: "c1", Success: true}))
	awaitLine(t, c, "command acked", "command_id=c1", "trace_id="+trace)
	require.NoError(t, watch.Close())
	require.NoError(t, c.end())

	accept, deliver, ack := traces.of(t, "command accept", "c1"), traces.of(t, "command deliver", "c1"), traces.of(t, "command ack", "c1")
	require.Equal(t, trace, hex.EncodeToString(accept.GetTraceId()))
	require.Equal(t, []string{hex.EncodeToString(accept.GetSpanId())}, spanLinks(deliver))
	require.Equal(t, []string{hex.EncodeToString(accept.GetSpanId()), hex.EncodeToString(deliver.GetSpanId())}, spanLinks(ack))
	call := traces.named("AdminService/SendCommand")
	require.Len(t, call, 1)
	require.Equal(t, call[0].GetSpanId(), accept.GetParentSpanId())
	require.Empty(t, traces.named("StreamCommands"))
	require.Empty(t, traces.named("WatchFleet"))
	for _, s := range traces.named("") {
		for _, a := range s.GetAttributes() {
			require.NotContains(t, a.GetKey(), "peer")
			require.NotContains(t, a.GetValue().GetStringValue(), "127.0.0.1")
		}
	}
}

// awaitLine waits for a log line with all of the words.
func awaitLine(t *testing.T, c *controller, words ...string) {
	t.Helper()
	await(t, strings.Join(words, " "), func() []string { return c.log.lines(words...) },
		func(lines []string) bool { return len(lines) > 0 })
}

// A collector that does not exist affects neither calls nor the stop, and is reported.
func TestTracesWithoutACollector(t *testing.T) { //nolint:paralleltest // as above
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+free.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	c := start(t)
	for range 20 {
		_, err := c.admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{VmId: "vm-1", Command: &commands.Command{Type: "drain"}})
		require.NoError(t, err)
	}
	began := time.Now()
	require.NoError(t, c.end())
	require.Less(t, time.Since(began), stopTime)
	require.NotEmpty(t, append(c.log.lines("level=WARN", "spans not exported", "count="), c.log.lines("level=WARN", "traces incomplete")...))
}

// A variable with a value that cannot be used is reported once, with its name, and the
// controller starts.
func TestInvalidTraceVariables(t *testing.T) { //nolint:paralleltest // as above
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "often", "OTEL_PROPAGATORS": "b3",
		"OTEL_BSP_MAX_QUEUE_SIZE": "hush", "OTEL_SDK_DISABLED": "no",
	} {
		t.Setenv(name, value)
	}
	c := start(t)
	for _, words := range [][]string{
		{"OpenTelemetry reports an error", "often"},
		{"OpenTelemetry reports an error", "OTEL_BSP_MAX_QUEUE_SIZE"},
		{"invalid value in the environment", "OTEL_PROPAGATORS"},
		{"invalid value in the environment", "OTEL_SDK_DISABLED"},
	} {
		require.Len(t, c.log.lines(append(words, "level=WARN")...), 1, words)
	}
	require.Empty(t, c.log.lines("hush"))
	require.NoError(t, c.end())
}

// Without the environment nothing is traced, and the log has no trace ids.
func TestTracesAreOff(t *testing.T) { //nolint:paralleltest // as above
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	traces := collectTraces(t)
	c := start(t)
	sent, err := c.admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{VmId: "vm-1", Command: &commands.Command{Id: "c1", Type: "drain"}})
	require.NoError(t, err)
	require.Empty(t, sent.GetCommand().GetTraceId())
	require.NoError(t, c.end())
	require.Empty(t, traces.named(""))
	require.Empty(t, c.log.lines("trace_id"))
	require.Empty(t, c.log.lines("traces "))
}

// The level of the log is changed by an operator, applies at once, and returns by itself.
func TestSetLogLevel(t *testing.T) {
	t.Parallel()
	c := start(t, func(o *config.Options) { o.LogLevel = "error" })
	levels := func() (now, reverts bool) {
		info, err := c.admin.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
		require.NoError(t, err)
		return info.GetLogLevel() == migcontrollerv1.LogLevel_LOG_LEVEL_ERROR, info.GetLogLevelRevertsAt() != nil
	}
	configured, reverts := levels()
	require.True(t, configured)
	require.False(t, reverts)
	a := c.connect(t, "vm-1")
	require.Empty(t, c.log.lines("agent connected"))
	a.end()

	setDebug := func(d time.Duration) (previous migcontrollerv1.LogLevel) {
		res, err := c.grpcAdmin.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{
			Level: migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, Duration: durationpb.New(d),
		})
		require.NoError(t, err)
		return res.GetPreviousLevel()
	}
	require.Equal(t, migcontrollerv1.LogLevel_LOG_LEVEL_ERROR, setDebug(time.Hour))
	configured, reverts = levels()
	require.False(t, configured)
	require.True(t, reverts)
	c.connect(t, "vm-2")
	awaitLine(t, c, "agent connected", "vm_id=vm-2", "session_id=ses-", "request_id=req-", "peer=127.0.0.1:")
	awaitLine(t, c, "log level changed", "log_level=DEBUG", "request_id=req-")
	require.Equal(t, migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, setDebug(time.Second))
	awaitLine(t, c, "log level returned to the configured one", "log_level=ERROR")
	configured, reverts = levels()
	require.True(t, configured)
	require.False(t, reverts)
}
