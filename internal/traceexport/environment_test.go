package traceexport

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Tracing is off unless the standard environment switches it on.
func TestRead(t *testing.T) {
	t.Parallel()
	type env = map[string]string
	for name, test := range map[string]struct {
		env      env
		want     string // described exporters; empty if tracing is off
		warnings []string
	}{
		"nothing":           {env{}, "", nil},
		"none":              {env{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "", nil},
		"otlp":              {env{"OTEL_TRACES_EXPORTER": "otlp"}, "otlp, http/protobuf, to the default endpoint", nil},
		"an endpoint":       {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hush@c:4318/x?key=hush"}, "otlp, http/protobuf, to http://c:4318", nil},
		"of traces":         {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://b/v1/traces"}, "otlp, http/protobuf, to https://b", nil},
		"no URL":            {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, "otlp, http/protobuf, to the endpoint in the environment", []string{"OTEL_EXPORTER_OTLP_ENDPOINT: nothing can be exported: it is not a URL such as http://localhost:4318"}},
		"no scheme":         {env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "hush:4318"}, "otlp, http/protobuf, to the endpoint in the environment", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: nothing can be exported: it is not a URL such as http://localhost:4318"}},
		"no scheme, grpc":   {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp, grpc, to the endpoint in the environment", nil},
		"unused endpoint":   {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector", "OTEL_TRACES_EXPORTER": "console"}, "console", nil},
		"grpc":              {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp, grpc, to the default endpoint", nil},
		"grpc for traces":   {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "otlp, grpc, to the default endpoint", nil},
		"console":           {env{"OTEL_TRACES_EXPORTER": "console"}, "console", nil},
		"two":               {env{"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, "otlp, http/protobuf, to the default endpoint; console", nil},
		"disabled":          {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, "", nil},
		"not disabled":      {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "1"}, "otlp, http/protobuf, to the default endpoint", []string{`OTEL_SDK_DISABLED: "1" is ignored: it is not true or false`}},
		"unknown exporter":  {env{"OTEL_TRACES_EXPORTER": "zipkin"}, "", []string{`OTEL_TRACES_EXPORTER: "zipkin" is ignored: it is not otlp, console or none`}},
		"unknown protocol":  {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "otlp, http/protobuf, to the default endpoint", []string{`OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is ignored: it is not grpc or http/protobuf`}},
		"other propagators": {env{"OTEL_TRACES_EXPORTER": "console", "OTEL_PROPAGATORS": "b3,tracecontext"}, "console", []string{`OTEL_PROPAGATORS: "b3" is ignored: it is not tracecontext, baggage or none`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Read(func(key string) string { return test.env[key] })
			require.Equal(t, test.want != "", s.On())
			require.Equal(t, test.want, s.describeAll())
			require.Equal(t, test.warnings, s.Warnings())
		})
	}
}

// The traces of callers are linked unless the environment selects no propagator that is known.
func TestReadPropagators(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": true, "tracecontext,baggage": true, "baggage": false, "none": false, "b3": false} {
		s := Read(func(key string) string {
			return map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_PROPAGATORS": value}[key]
		})
		p := &Provider{propagate: s.propagate}
		require.Equal(t, want, len(p.Propagator().Fields()) > 0, value)
	}
}
