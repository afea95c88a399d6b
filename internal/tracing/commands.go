// Package tracing owns the spans of a command's life and the links between them.
package tracing

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// scope names the source of the spans of commands.
const scope = "github.com/mig-controller/mig-controller/internal/tracing"

// The names of the spans of commands.
const (
	spanAccept  = "command accept"
	spanDeliver = "command deliver"
	spanAck     = "command ack"
)

// The attributes of the spans of commands. Those that the log has too have the same keys there.
const (
	attrVM      = attribute.Key("vm_id")
	attrCommand = attribute.Key("command_id")
	attrType    = attribute.Key("command_type")
	attrPool    = attribute.Key("pool_id")
	attrEpoch   = attribute.Key("session_epoch")
	attrAttempt = attribute.Key("attempt")
	attrVia     = attribute.Key("via")
	attrState   = attribute.Key("state")
	attrSuccess = attribute.Key("success")
)

// Commands makes the spans of the lives of commands. Acceptance, each delivery and each ack is
// a trace of its own, or a part of that of its request, since hours can pass between them. The
// later spans are linked to the earlier ones, and are sampled if those are.
//
// The methods do nothing and return zero values if the Commands is nil.
type Commands struct{ requests, linked trace.Tracer }

// NewCommands returns a Commands that uses linked, which must sample everything, for spans that
// are linked to a sampled one, and requests for all others.
func NewCommands(requests, linked trace.TracerProvider) *Commands {
	return &Commands{requests.Tracer(scope), linked.Tracer(scope)}
}

// Span is a span of a command. Its zero value is none, and its methods do nothing then.
type Span struct{ span trace.Span }

// Accept begins the span of the acceptance of c and makes its trace that of c. ctx is the
// context of the request.
func (t *Commands) Accept(ctx context.Context, c *fleet.Command) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, span := t.requests.Start(ctx, spanAccept, trace.WithAttributes(attributesOf(c)...))
	c.Trace = Parent(span.SpanContext())
	return ctx, Span{span}
}

// Accepted ends the span of an acceptance. kept is the record: an earlier one if the request
// was repeated.
func (s Span) Accepted(kept *fleet.Command, err error) {
	if s.span == nil {
		return
	}
	if err == nil && kept.Trace != s.Parent() {
		if first := ContextOf(kept.Trace); first.IsValid() {
			s.span.AddLink(trace.Link{SpanContext: first})
		}
	}
	s.End(err)
}

// Deliver begins the span of a delivery, linked to the acceptance. ctx is the context of a
// poll; on a stream it has no span.
func (t *Commands) Deliver(ctx context.Context, c *fleet.Command, pool string) Span {
	if t == nil {
		return Span{}
	}
	return t.begin(ctx, spanDeliver, trace.SpanKindProducer, []string{c.Trace}, append(attributesOf(c),
		attrPool.String(pool), attrEpoch.Int64(int64(c.Last.Epoch)), attrAttempt.Int(c.Attempts), attrVia.String(string(c.Last.Via))))
}

// Ack makes the span of an ack. It began when the ack arrived, and ends now, when the ack is
// durable. It is linked to the acceptance, and to the delivery if that is known.
func (t *Commands) Ack(ctx context.Context, a Acked) {
	if t == nil {
		return
	}
	c := a.Command
	s := t.begin(ctx, spanAck, trace.SpanKindConsumer, []string{c.Trace, a.Delivery}, append(attributesOf(c),
		attrPool.String(a.Pool), attrEpoch.Int64(int64(a.Epoch)), attrAttempt.Int(c.Attempts),
		attrState.String(string(c.State)), attrSuccess.Bool(a.Success)), trace.WithTimestamp(a.At))
	s.End(nil)
}

// Acked is an ack that is durable.
type Acked struct {
	// Command is the record with the ack.
	Command *fleet.Command
	Success bool
	// Pool and Epoch are those of the session that it arrived on.
	Pool  string
	Epoch fleet.Epoch
	// At is when it arrived by time.Now, which the ends of spans are by as well. The clock for
	// the times of records can differ by seconds.
	At time.Time
	// Delivery is the Parent of the span of the delivery; empty if it is not known.
	Delivery string
}

func attributesOf(c *fleet.Command) []attribute.KeyValue {
	return []attribute.KeyValue{attrVM.String(string(c.VM)), attrCommand.String(string(c.ID)), attrType.String(c.Type)}
}

// begin begins a span with links to earlier ones. The first of them decides whether it is
// sampled; if there is none, the environment does.
func (t *Commands) begin(
	ctx context.Context, name string, kind trace.SpanKind, earlier []string, attributes []attribute.KeyValue, options ...trace.SpanStartOption,
) Span {
	var links []trace.Link
	for _, parent := range earlier {
		if to := ContextOf(parent); to.IsValid() {
			links = append(links, trace.Link{SpanContext: to})
		}
	}
	from := t.requests
	if len(links) > 0 {
		if from = t.linked; !links[0].SpanContext.IsSampled() {
			return Span{}
		}
	}
	options = append(options, trace.WithSpanKind(kind), trace.WithLinks(links...), trace.WithAttributes(attributes...))
	_, span := from.Start(ctx, name, options...)
	return Span{span}
}

// End ends the span, as failed unless err is nil.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Parent returns what later spans are linked to: the span's traceparent; empty if there is no
// span.
func (s Span) Parent() string {
	if s.span == nil {
		return ""
	}
	return Parent(s.span.SpanContext())
}

// Parent returns the context of a span in the form of the W3C header traceparent; empty if the
// context is invalid.
func Parent(of trace.SpanContext) string {
	if !of.IsValid() {
		return ""
	}
	return version + "-" + of.TraceID().String() + "-" + of.SpanID().String() + "-" + (of.TraceFlags() & trace.FlagsSampled).String()
}

// version is that of the form of a Parent.
const version = "00"

// ContextOf returns the context of a span from its Parent. It is invalid if parent has not that
// form.
func ContextOf(parent string) trace.SpanContext {
	parts := strings.SplitN(parent, "-", 4)
	if len(parts) != 4 || parts[0] != version {
		return trace.SpanContext{}
	}
	traceID, badTrace := trace.TraceIDFromHex(parts[1])
	spanID, badSpan := trace.SpanIDFromHex(parts[2])
	flags, badFlags := hex.DecodeString(parts[3])
	if badTrace != nil || badSpan != nil || badFlags != nil || len(flags) != 1 {
		return trace.SpanContext{}
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]), Remote: true,
	})
}

// ID returns the trace id in a Parent; empty if parent has not that form.
func ID(parent string) string {
	if parent == "" { // most commands have no trace
		return ""
	}
	if of := ContextOf(parent); of.IsValid() {
		return of.TraceID().String()
	}
	return ""
}
