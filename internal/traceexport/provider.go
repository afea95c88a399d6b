// Package traceexport owns how spans leave the process: which exporters the environment asks
// for, the queues before them, and what happens to spans that cannot be exported. While tracing
// is off, nothing of the OpenTelemetry SDK runs.
package traceexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// ServiceName is the service.name unless the environment has another one.
const ServiceName = "mig-controller"

// Options configure a Provider. All fields are required.
type Options struct {
	// Version is the service.version.
	Version string
	// Console receives the spans of the exporter console, one JSON object per line.
	Console io.Writer
	// Failed is called with the reason why a number of spans was not exported, from any
	// goroutine and any number of times.
	Failed func(spans int, err error)
}

// Provider makes spans and exports them in the background. Spans that cannot be exported in
// time are dropped: a slow or failing exporter affects nothing else. It is safe for concurrent
// use.
type Provider struct {
	requests, linked *sdktrace.TracerProvider
	exports          []*export
	propagate        bool
	description      string
}

// Start returns a running Provider for settings that are on. It does not connect to anything.
// Shutdown must follow. An error of the SDK that concerns neither a span nor the start, such as
// an invalid variable, goes to the handlers of package otel.
func Start(ctx context.Context, s Settings, o Options) (*Provider, error) {
	described, err := describe(ctx, o.Version)
	if err != nil { // what could be read is used
		otel.Handle(err)
	}
	p := &Provider{propagate: s.propagate, description: s.describeAll()}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(described)}
	for _, name := range s.exporters {
		to, err := newExporter(ctx, name, s.protocol, o.Console)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("trace exporter %s: %w", name, err), p.Shutdown(ctx))
		}
		e := newExport(to, o.Failed)
		p.exports = append(p.exports, e)
		options = append(options, sdktrace.WithSpanProcessor(e.batches))
	}
	p.requests = sdktrace.NewTracerProvider(options...)
	p.linked = sdktrace.NewTracerProvider(append(options, sdktrace.WithSampler(sdktrace.AlwaysSample()))...)
	return p, nil
}

// describe returns the attributes of the process. Those in the environment take precedence.
func describe(ctx context.Context, version string) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", ServiceName), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
}

func newExporter(ctx context.Context, name, protocol string, console io.Writer) (sdktrace.SpanExporter, error) {
	switch {
	case name == exporterConsole:
		return stdouttrace.New(stdouttrace.WithWriter(console))
	case protocol == protocolGRPC:
		return otlptracegrpc.New(ctx)
	default:
		return otlptracehttp.New(ctx)
	}
}

func (s *Settings) describeAll() string {
	var all []string
	for _, exporter := range s.exporters {
		all = append(all, s.describe(exporter))
	}
	return strings.Join(all, "; ")
}

// describe describes an exporter for people. Of the endpoint it shows only the host: the rest
// can be secret.
func (s *Settings) describe(exporter string) string {
	if exporter == exporterConsole {
		return exporter
	}
	to := "the default endpoint"
	if s.endpoint != "" {
		to = "the endpoint in the environment"
	}
	if u, err := url.Parse(s.endpoint); err == nil && u.Host != "" {
		to = u.Scheme + "://" + u.Host
	}
	return fmt.Sprintf("%s, %s, to %s", exporter, s.protocol, to)
}

// Requests returns the provider for spans that are sampled as the environment says.
func (p *Provider) Requests() trace.TracerProvider { return p.requests }

// Linked returns the provider for spans that are linked to a sampled one: all are sampled.
func (p *Provider) Linked() trace.TracerProvider { return p.linked }

// Propagator reads the trace of a caller from the headers of its request.
func (p *Provider) Propagator() propagation.TextMapPropagator {
	if p.propagate {
		return propagation.TraceContext{}
	}
	return propagation.NewCompositeTextMapPropagator()
}

// Describe returns where spans are exported to, for people; empty if p is nil.
func (p *Provider) Describe() string {
	if p == nil {
		return ""
	}
	return p.description
}

// Shutdown exports what is queued and stops. It returns when ctx ends at the latest; what is
// not exported then is lost. It does nothing if p is nil.
func (p *Provider) Shutdown(ctx context.Context) error {
	if p == nil {
		return nil
	}
	var errs []error
	for _, e := range p.exports {
		errs = append(errs, e.shutdown(ctx))
	}
	return errors.Join(errs...)
}
