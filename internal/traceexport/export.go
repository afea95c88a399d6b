package traceexport

import (
	"context"
	"errors"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// export is one exporter with the bounded queue before it.
type export struct {
	sdktrace.SpanExporter
	failed  func(spans int, err error)
	batches sdktrace.SpanProcessor
	// stopped ends the export in progress.
	stopped context.Context //nolint:containedctx // the exporter outlives all requests
	stop    context.CancelFunc
}

func newExport(to sdktrace.SpanExporter, failed func(int, error)) *export {
	e := &export{SpanExporter: to, failed: failed}
	e.stopped, e.stop = context.WithCancel(context.Background())
	e.batches = sdktrace.NewBatchSpanProcessor(e)
	return e
}

// ExportSpans implements sdktrace.SpanExporter. It reports a failure itself: the SDK would
// pass it to a handler that all of the process shares.
func (e *export) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)() //nolint:contextcheck // it ends all exports
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failed(len(spans), err)
	}
	return nil
}

// errNotFlushed means that an exporter did not take all spans in time.
var errNotFlushed = errors.New("the last spans were not exported in time")

func (e *export) shutdown(ctx context.Context) error {
	defer e.stop()
	err := e.batches.Shutdown(ctx)
	if ctx.Err() != nil {
		return errNotFlushed
	}
	return err
}
