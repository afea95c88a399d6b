package traceexport

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// The exporters.
const (
	exporterOTLP    = "otlp"
	exporterConsole = "console"
	exporterNone    = "none"
)

// The protocols of the exporter otlp.
const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// Settings are what the environment says about traces, as far as the SDK does not read it
// itself.
type Settings struct {
	exporters []string // none means that tracing is off
	protocol  string   // of the exporter otlp
	endpoint  string   // of the exporter otlp; empty for the default
	propagate bool     // whether the trace of a caller is linked
	warnings  []string

	endpointFrom string // the name of its variable
}

// On reports whether the environment switches on tracing.
func (s *Settings) On() bool { return len(s.exporters) > 0 }

// Warnings returns a text for each value that is ignored because it is not known, as the
// specification of OpenTelemetry demands, and for an endpoint to which nothing can be exported.
func (s *Settings) Warnings() []string { return s.warnings }

// Read reads the variables with getenv, which is os.Getenv except in tests.
func Read(getenv func(string) string) Settings {
	s := Settings{propagate: true}
	const disabled = "OTEL_SDK_DISABLED"
	switch value := getenv(disabled); strings.ToLower(value) {
	case "true":
		return s
	case "", "false":
	default:
		s.ignore(disabled, value, "true or false")
	}
	s.readExporters(getenv)
	if len(s.exporters) == 0 {
		return s
	}
	s.readProtocol(getenv)
	s.checkEndpoint()
	s.readPropagators(getenv)
	return s
}

// checkEndpoint warns if the endpoint cannot be used. The exporter would not notice before the
// first export. The text leaves out the value, which can be secret.
func (s *Settings) checkEndpoint() {
	u, err := url.Parse(s.endpoint)
	if s.protocol == protocolGRPC || s.endpoint == "" || !slices.Contains(s.exporters, exporterOTLP) ||
		err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		return
	}
	s.warnings = append(s.warnings, s.endpointFrom+": nothing can be exported: it is not a URL such as http://localhost:4318")
}

func (s *Settings) readExporters(getenv func(string) string) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if s.endpoint = getenv(name); s.endpoint != "" {
			s.endpointFrom = name
			break
		}
	}
	names := list(getenv("OTEL_TRACES_EXPORTER"))
	if len(names) == 0 && s.endpoint != "" {
		names = []string{exporterOTLP}
	}
	for _, name := range names {
		switch name {
		case exporterOTLP, exporterConsole:
			if !slices.Contains(s.exporters, name) {
				s.exporters = append(s.exporters, name)
			}
		case exporterNone:
		default:
			s.ignore("OTEL_TRACES_EXPORTER", name, "otlp, console or none")
		}
	}
}

func (s *Settings) readProtocol(getenv func(string) string) {
	s.protocol = protocolHTTP
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch value := getenv(name); value {
		case "":
			continue
		case protocolHTTP, protocolGRPC:
			s.protocol = value
		default:
			s.ignore(name, value, "grpc or http/protobuf")
		}
		return
	}
}

func (s *Settings) readPropagators(getenv func(string) string) {
	names := list(getenv("OTEL_PROPAGATORS"))
	if len(names) == 0 {
		return
	}
	s.propagate = slices.Contains(names, "tracecontext")
	for _, name := range names {
		if !slices.Contains([]string{"tracecontext", "baggage", exporterNone}, name) {
			s.ignore("OTEL_PROPAGATORS", name, "tracecontext, baggage or none")
		}
	}
}

func (s *Settings) ignore(variable, value, known string) {
	s.warnings = append(s.warnings, fmt.Sprintf("%s: %q is ignored: it is not %s", variable, value, known))
}

// list returns the entries of a value that is separated by commas.
func list(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
