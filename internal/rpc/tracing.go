package rpc

import (
	"context"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// NewTraceInterceptor returns an interceptor that makes a span for each unary call that is not
// a report. It must be outside that of NewErrorInterceptor, so that spans have the code that
// callers get and log lines have the trace.
//
// A span is the root of its own trace, and linked to that of the caller: otherwise callers
// could choose what is sampled. Spans have no attributes of the peer.
func NewTraceInterceptor(p trace.TracerProvider, propagator propagation.TextMapPropagator) (connect.Interceptor, error) {
	return otelconnect.NewInterceptor(
		otelconnect.WithTracerProvider(p), otelconnect.WithPropagator(propagator),
		otelconnect.WithoutMetrics(), otelconnect.WithFilter(isTraced))
}

// isTraced reports whether calls have spans. Streams last for hours, and reports are most of
// the calls of a fleet.
func isTraced(_ context.Context, s connect.Spec) bool {
	return s.StreamType == connect.StreamTypeUnary &&
		s.Procedure != migcontrollerv1connect.AgentServiceReportEventProcedure &&
		s.Procedure != migcontrollerv1connect.AgentServiceReportHeartbeatProcedure
}
