package tracing

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// A Parent survives storage; whatever else is stored there is no trace.
func TestParent(t *testing.T) {
	t.Parallel()
	require.Equal(t, example, Parent(ContextOf(example)))
	require.True(t, ContextOf(example).IsSampled())
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", ID(example))
	require.Empty(t, Parent(trace.SpanContext{}))
	for _, bad := range []string{"", "x", example[:50], example + "-01", strings.Repeat("0", len(example)), strings.Repeat("x", 1<<20)} {
		require.False(t, ContextOf(bad).IsValid(), bad)
		require.Empty(t, ID(bad))
	}
}

// While tracing is off nothing is recorded, allocated or stored.
func TestOff(t *testing.T) { //nolint:paralleltest // allocations are counted
	var off *Commands
	c := fleet.Command{ID: "c1", VM: "vm-1"}
	ctx, lost := t.Context(), errors.New("lost")
	work := func() {
		ctx, span := off.Accept(ctx, &c)
		span.Accepted(&c, nil)
		deliver := off.Deliver(ctx, &c, "pool")
		deliver.End(lost)
		off.Ack(ctx, Acked{Command: &c, Delivery: deliver.Parent()})
		_ = ID(c.Trace)
	}
	require.Zero(t, testing.AllocsPerRun(100, work))
	require.Empty(t, c.Trace)
}

// A request that is repeated is linked to the first acceptance, and a failure marks its span.
func TestAccepted(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	commands := NewCommands(provider, provider)
	accept := func(kept func(fleet.Command) fleet.Command, err error) sdktrace.ReadOnlySpan {
		c := fleet.Command{ID: "c1", VM: "vm-1", Type: "drain"}
		_, span := commands.Accept(t.Context(), &c)
		c = kept(c)
		span.Accepted(&c, err)
		ended := recorder.Ended()
		return ended[len(ended)-1]
	}
	same := func(c fleet.Command) fleet.Command { return c }
	require.Empty(t, accept(same, nil).Links())
	repeated := accept(func(c fleet.Command) fleet.Command {
		c.Trace = example
		return c
	}, nil)
	require.Len(t, repeated.Links(), 1)
	require.Equal(t, example, Parent(repeated.Links()[0].SpanContext))
	failed := accept(func(fleet.Command) fleet.Command { return fleet.Command{} }, errors.New("disk full"))
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "disk full"}, failed.Status())
}

func BenchmarkOff(b *testing.B) {
	var off *Commands
	c := fleet.Command{ID: "c1", VM: "vm-1"}
	root := b.Context()
	for b.Loop() {
		ctx, span := off.Accept(root, &c)
		span.Accepted(&c, nil)
		deliver := off.Deliver(ctx, &c, "pool")
		deliver.End(nil)
		off.Ack(ctx, Acked{Command: &c, Delivery: deliver.Parent()})
	}
}

func BenchmarkOn(b *testing.B) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sdktrace.NewBatchSpanProcessor(tracetest.NewNoopExporter())))
	on := NewCommands(provider, provider)
	for b.Loop() {
		c := fleet.Command{ID: "c1", VM: "vm-1"}
		ctx, span := on.Accept(b.Context(), &c)
		span.Accepted(&c, nil)
		deliver := on.Deliver(ctx, &c, "pool")
		deliver.End(nil)
		on.Ack(ctx, Acked{Command: &c, Delivery: deliver.Parent()})
	}
	require.NoError(b, provider.Shutdown(b.Context()))
}
